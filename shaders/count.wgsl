// count: ones of each bitstream, by segments whose counts fit 32 bits.
// Computes:  counts[s, g] = popcount(words[s, g * segment_words .. (g + 1) * segment_words])
// Work item: neighbouring invocations, `lanes` of them, count one segment
// Exactness: integer; equals cpu_ref/count.zig bit for bit
#import abi
#import grid
#import workgroup_sum

override lanes: u32 = 64u;

@compute @workgroup_size(wg_size)
fn count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    invocation: Invocation,
) {
    let segments = params.stream_count * params.segment_count;
    let first = workgroup_index(workgroup, grid) * (wg_size / lanes);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (first >= segments) {
        return;
    }
    let item = min(first + invocation.lane / lanes, segments - 1u);
    let row = item / params.segment_count * params.word_count;
    let begin = item % params.segment_count * params.segment_words;
    let end = min(begin + params.segment_words, params.word_count);
    var ones = 0u;
    for (var w = begin + invocation.lane % lanes; w < end; w += lanes) {
        let bits = countOneBits(words[row + w]);
        ones += bits.x + bits.y;
    }
    if (lanes > 1u) {
        ones = workgroup_sum(vec4(ones, 0u, 0u, 0u), lanes, invocation).x;
    }
    // Past the last segment it is the last one's number again.
    if (invocation.lane % lanes == 0u) {
        counts[item] = ones;
    }
}
