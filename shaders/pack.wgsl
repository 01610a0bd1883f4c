// pack: single bits, one to a byte, into bitstream words.
// Computes:  bit t of stream s = bits[s, t] != 0; refused[0] = 1 where a byte is neither 0 nor 1
// Work item: one invocation writes one 64-bit word
// Layout:    rows of bits lie back to back, of any length; words[first_word + s * word_count + t / 64]
// Padding:   bits past the last one of a stream are 0
// Exactness: integer; equals cpu_ref/pack.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;

// 1 in the lowest bit of each byte that is not 0.
fn nonzero(bytes: u32) -> u32 {
    return ((((bytes & 0x7f7f7f7fu) + 0x7f7f7f7fu) | bytes) >> 7u) & 0x01010101u;
}

// The lowest bits of the four bytes, side by side.
fn gather(bytes: u32) -> u32 {
    return (bytes * 0x01020408u) >> 24u & 0xfu;
}

@compute @workgroup_size(wg_size)
fn pack(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    if (item >= params.stream_count * params.word_count) {
        return;
    }
    let word = item % params.word_count;
    let length = 64u * (params.word_count - 1u) + params.tail_bits;
    let first = item / params.word_count * length + 64u * word;
    let count = min(64u, length - 64u * word);
    // Rows begin at any byte: four of them come from two elements.
    let shift = 8u * (first % 4u);
    var element = first / 4u;
    var current = bits[element];
    var packed = vec2(0u);
    var wrong = 0u;
    for (var t = 0u; t < count; t += 4u) {
        var bytes = current >> shift;
        element++;
        current = bits[element];
        // A shift by 32 is not defined.
        bytes |= select(current << (32u - shift), 0u, shift == 0u);
        if (t + 4u > count) {
            bytes &= (1u << (8u * (count - t))) - 1u;
        }
        wrong |= bytes;
        let four = gather(nonzero(bytes)) << (t % 32u);
        packed |= select(vec2(0u, four), vec2(four, 0u), t < 32u);
    }
    words[params.first_word + item] = packed;
    if ((wrong & 0xfefefefeu) != 0u) {
        atomicStore(&refused[0], 1u);
    }
}
