// count: ones of each bitstream, by segments whose counts fit 32 bits.
// Computes:  counts[s, g] = popcount(words[s, g * segment_words .. (g + 1) * segment_words])
// Work item: one workgroup counts one segment
// Exactness: integer; equals cpu_ref/count.zig bit for bit
#import abi
#import grid
#import workgroup_sum

@compute @workgroup_size(wg_size)
fn count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    invocation: Invocation,
) {
    let item = workgroup_index(workgroup, grid);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (item >= params.stream_count * params.segment_count) {
        return;
    }
    let row = item / params.segment_count * params.word_count;
    let begin = item % params.segment_count * params.segment_words;
    let end = min(begin + params.segment_words, params.word_count);
    var ones = 0u;
    for (var w = begin + invocation.lane; w < end; w += wg_size) {
        let bits = countOneBits(words[row + w]);
        ones += bits.x + bits.y;
    }
    let total = workgroup_sum(vec4(ones, 0u, 0u, 0u), wg_size, invocation);
    if (invocation.lane == 0u) {
        counts[item] = total.x;
    }
}
