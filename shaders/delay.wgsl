// delay: each stream later by 64 * word_shift + bit_shift bits, zeros before it.
// Work item: one invocation writes one 64-bit word
// Padding:   what passes the last bit of a stream is cut off
// Exactness: integer; equals cpu_ref/delay.zig bit for bit
#import abi
#import grid
#import tail

override wg_size: u32 = 64u;

@compute @workgroup_size(wg_size)
fn delay(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_index(workgroup, grid) * wg_size + lane;
    if (i >= params.stream_count * params.word_count) {
        return;
    }
    let word = i % params.word_count;
    var here = vec2(0u);
    var before = vec2(0u);
    if (word >= params.word_shift) {
        here = words[i - params.word_shift];
    }
    if (word > params.word_shift) {
        before = words[i - params.word_shift - 1u];
    }
    if (params.bit_shift >= 32u) {
        here = vec2(before.y, here.x);
        before = vec2(0u, before.x);
    }
    let shift = params.bit_shift & 31u;
    // A shift by 32 is not defined: in two steps none of them is.
    let carried = vec2(before.y, here.x) >> vec2(1u) >> vec2(31u - shift);
    result[i] = (here << vec2(shift) | carried) & tail_mask(word, params.word_count, params.tail_bits);
}
