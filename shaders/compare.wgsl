// compare: bitstreams from thresholds and sequences of numbers that lie in memory.
// Computes:  bit t of stream s in sample b = sequences[q][(phase + t) % period] < thresholds[b, s],
//            with the place (q, phase) of stream s at places[2 * s * place_stride]
// Work item: one invocation writes one 64-bit word; neighbours make the same word of neighbouring
//            streams, so that where these share a sequence they load the same numbers
// Padding:   bits past the last one of a stream are 0
// Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
// Limits:    a period of at most 2^25, so that places fit 32 bits
// Exactness: integer; equals cpu_ref/compare.zig bit for bit
#import abi
#import grid
#import tail

override wg_size: u32 = 64u;

// 32 bits from the number at `first` of a sequence that begins at `row`.
fn below(row: u32, first: u32, threshold: u32) -> u32 {
    var bits = 0u;
    if (first + 32u <= params.period) {
        for (var t = 0u; t < 32u; t++) {
            bits |= select(0u, 1u, sequences[row + first + t] < threshold) << t;
        }
        return bits;
    }
    var place = first;
    for (var t = 0u; t < 32u; t++) {
        bits |= select(0u, 1u, sequences[row + place] < threshold) << t;
        place++;
        if (place == params.period) {
            place = 0u;
        }
    }
    return bits;
}

@compute @workgroup_size(wg_size)
fn compare(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    let rows = params.sample_count * params.stream_count;
    let word = item / rows;
    if (word >= params.word_count) {
        return;
    }
    let row = item % rows;
    let threshold = thresholds[row];
    var bits = vec2(0xffffffffu);
    if (threshold != 0xffffffffu) {
        let place = 2u * (row % params.stream_count) * params.place_stride;
        let sequence = places[place] * params.period;
        // 64 * word itself may pass 32 bits.
        let first = (places[place + 1u] + word % params.period * 64u) % params.period;
        bits = vec2(
            below(sequence, first, threshold),
            below(sequence, (first + 32u) % params.period, threshold),
        );
    }
    words[row * params.word_count + word] = bits & tail_mask(word, params.word_count, params.tail_bits);
}
