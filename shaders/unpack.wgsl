// unpack: bitstream words into single bits, one to a byte.
// Computes:  bits[s, t] = (words[first_word + s * word_count + t / 64] >> (t % 64)) & 1
// Work item: one invocation writes four bytes, which may belong to several streams
// Layout:    rows of bits lie back to back, of any length
// Padding:   bytes past the last row stay as they are
// Exactness: integer; equals cpu_ref/unpack.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;

@compute @workgroup_size(wg_size)
fn unpack(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    let length = 64u * (params.word_count - 1u) + params.tail_bits;
    let total = params.stream_count * length;
    let first = 4u * item;
    if (item >= (total + 3u) / 4u) {
        return;
    }
    var row = params.first_word + first / length * params.word_count;
    var t = first % length;
    var bytes = 0u;
    if (t + 4u <= length && t % 32u <= 28u) {
        // Four bits of one half of a word: copies 7 places apart put each in its byte.
        let four = words[row + t / 64u][t / 32u % 2u] >> (t % 32u) & 0xfu;
        bytes = (four * 0x00204081u) & 0x01010101u;
    } else {
        let count = min(4u, total - first);
        for (var k = 0u; k < count; k++) {
            let bit = words[row + t / 64u][t / 32u % 2u] >> (t % 32u) & 1u;
            bytes |= bit << (8u * k);
            t++;
            if (t == length) {
                t = 0u;
                row += params.word_count;
            }
        }
        if (count < 4u) {
            bytes |= bits[item] & ~((1u << (8u * count)) - 1u);
        }
    }
    bits[item] = bytes;
}
