// compare: bitstreams from thresholds and sequences of numbers that lie in memory.
// Computes:  bit t of stream s in sample b = sequences[q][(phase + t) % period] < thresholds[b, s],
//            with the place (q, phase) of stream s at places[2 * s * place_stride]
// Work item: one invocation writes the same 64-bit word of four neighbouring rows (sample, stream);
//            where streams share a place it loads their numbers once
// Padding:   bits past the last one of a stream are 0
// Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
// Limits:    a period of at most 2^25, so that places fit 32 bits
// Exactness: integer; equals cpu_ref/compare.zig bit for bit
#import abi
#import grid
#import tail

override wg_size: u32 = 64u;
// The boundary's `place_stride`, fixed when the pipeline is made: it stands in the innermost loop.
override own_places: u32 = 0u;

// The numbers at a place of each row's sequence.
fn numbers_at(places_of: vec4<u32>) -> vec4<u32> {
    if (own_places == 0u) {
        return vec4(sequences[places_of.x]);
    }
    return vec4(sequences[places_of.x], sequences[places_of.y], sequences[places_of.z], sequences[places_of.w]);
}

// 32 bits of each row, from the numbers at `first` of the sequences that begin at `begin`.
fn below(begin: vec4<u32>, first: vec4<u32>, limits: vec4<u32>) -> vec4<u32> {
    var bits = vec4(0u);
    if (all(first + 32u <= vec4(params.period))) {
        for (var t = 0u; t < 32u; t++) {
            bits |= select(vec4(0u), vec4(1u << t), numbers_at(begin + first + t) < limits);
        }
        return bits;
    }
    var place = first;
    for (var t = 0u; t < 32u; t++) {
        bits |= select(vec4(0u), vec4(1u << t), numbers_at(begin + place) < limits);
        place = select(place + 1u, vec4(0u), place + 1u == vec4(params.period));
    }
    return bits;
}

@compute @workgroup_size(wg_size)
fn compare(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let rows = params.sample_count * params.stream_count;
    let groups = (rows + 3u) / 4u;
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    let word = item / groups;
    if (word >= params.word_count) {
        return;
    }
    let row = 4u * (item % groups);
    // 64 * word itself may pass 32 bits.
    let skipped = word % params.period * 64u;
    var begin = vec4(0u);
    var first = vec4(0u);
    var limits = vec4(0u);
    for (var k = 0u; k < 4u && row + k < rows; k++) {
        let place = 2u * ((row + k) % params.stream_count) * params.place_stride;
        begin[k] = places[place] * params.period;
        first[k] = (places[place + 1u] + skipped) % params.period;
        limits[k] = thresholds[params.threshold_offset + row + k];
    }
    let always = select(vec4(0u), vec4(0xffffffffu), limits == vec4(0xffffffffu));
    let low = below(begin, first, limits) | always;
    let high = below(begin, (first + 32u) % vec4(params.period), limits) | always;
    let mask = tail_mask(word, params.word_count, params.tail_bits);
    for (var k = 0u; k < 4u && row + k < rows; k++) {
        words[(row + k) * params.word_count + word] = vec2(low[k], high[k]) & mask;
    }
}
