// encode: Bernoulli bitstreams from thresholds (stochastic number generator).
// Computes:  bit t of stream s in sample b = U < thresholds[b, s], U from philox(counter(b, s, t), key)
// Work item: one invocation writes one 64-bit word
// Layout:    words[b, s, w] is word first_word + w of the stream; its bit t is (word[t / 64] >> (t % 64)) & 1
// Padding:   bits past the last one of a stream are 0
// Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
// Exactness: integer; equals cpu_ref/encode.zig bit for bit
#import abi
#import grid
#import philox_block
#import tail

override wg_size: u32 = 64u;

// 32 bits of a stream: walks the threshold's bits from the top for all of them together and
// stops when every one is decided. Draws are addressed, so stopping early changes no bit.
fn walk(threshold: u32, word: u32, stream: u32, sample: u32) -> u32 {
    var ones = 0u;
    var undecided = 0xffffffffu;
    var rest = threshold;
    for (var b = 0u; b < 8u && rest != 0u && undecided != 0u; b++) {
        let counter = vec4(8u * word + b, stream, sample, params.domain);
        let draws = philox_ten(counter, vec2(params.key_lo, params.key_hi));
        for (var k = 0u; k < 4u; k++) {
            let draw = draws[k];
            let one = (rest >> 31u) != 0u;
            ones |= select(0u, undecided & ~draw, one);
            undecided &= select(~draw, draw, one);
            rest <<= 1u;
        }
    }
    return ones;
}

@compute @workgroup_size(wg_size)
fn encode(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    let row = item / params.word_count;
    if (row >= params.sample_count * params.stream_count) {
        return;
    }
    let word = item % params.word_count;
    let place = params.first_word + word;
    let stream = params.first_stream + row % params.stream_count;
    let sample = params.first_sample + row / params.stream_count;
    let threshold = thresholds[params.threshold_offset + row];
    var bits = vec2(0xffffffffu);
    if (threshold != 0xffffffffu) {
        bits = vec2(walk(threshold, 2u * place, stream, sample), walk(threshold, 2u * place + 1u, stream, sample));
    }
    words[item] = bits & tail_mask(word, params.word_count, params.tail_bits);
}
