// compare: bitstreams from thresholds and sequences of numbers that lie in memory.
// Computes:  bit t of stream s in sample b = sequences[q][(phase + t) % period] < thresholds[b, s],
//            with the place (q, phase) of stream s at places[2 * s * place_stride]
// Work item: one invocation writes the same 64-bit word of four or eight neighbouring rows (sample, stream);
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
// Fours of rows that an invocation writes, 1 or 2.
override fours: u32 = 1u;

// Something of each of eight rows.
struct Rows {
    a: vec4<u32>,
    b: vec4<u32>,
}

// The numbers at a place of each row's sequence.
fn numbers_at(place: vec4<u32>) -> vec4<u32> {
    return vec4(sequences[place.x], sequences[place.y], sequences[place.z], sequences[place.w]);
}

// Bit t of the rows' words, from the numbers at `place`.
fn compared(place: Rows, limits: Rows, t: u32) -> Rows {
    var below: Rows;
    let bit = vec4(1u << t);
    if (own_places == 0u) {
        let number = vec4(sequences[place.a.x]);
        below.a = select(vec4(0u), bit, number < limits.a);
        if (fours > 1u) {
            below.b = select(vec4(0u), bit, number < limits.b);
        }
        return below;
    }
    below.a = select(vec4(0u), bit, numbers_at(place.a) < limits.a);
    if (fours > 1u) {
        below.b = select(vec4(0u), bit, numbers_at(place.b) < limits.b);
    }
    return below;
}

// 32 bits of each row, from the numbers at `first` of the sequences that begin at `begin`.
fn below(begin: Rows, first: Rows, limits: Rows) -> Rows {
    let period = vec4(params.period);
    var bits: Rows;
    var place = first;
    if (all(first.a + 32u <= period) && all(first.b + 32u <= period)) {
        for (var t = 0u; t < 32u; t++) {
            let found = compared(Rows(begin.a + first.a + t, begin.b + first.b + t), limits, t);
            bits.a |= found.a;
            bits.b |= found.b;
        }
        return bits;
    }
    for (var t = 0u; t < 32u; t++) {
        let found = compared(Rows(begin.a + place.a, begin.b + place.b), limits, t);
        bits.a |= found.a;
        bits.b |= found.b;
        place.a = select(place.a + 1u, vec4(0u), place.a + 1u == period);
        place.b = select(place.b + 1u, vec4(0u), place.b + 1u == period);
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
    let groups = (rows + 4u * fours - 1u) / (4u * fours);
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    let word = item / groups;
    if (word >= params.word_count) {
        return;
    }
    let row = 4u * fours * (item % groups);
    // 64 * word itself may pass 32 bits.
    let skipped = word % params.period * 64u;
    var begin: Rows;
    var first: Rows;
    var limits: Rows;
    for (var k = 0u; k < 4u * fours && row + k < rows; k++) {
        let place = 2u * ((row + k) % params.stream_count) * params.place_stride;
        let sequence = places[place] * params.period;
        let phase = (places[place + 1u] + skipped) % params.period;
        let limit = thresholds[params.threshold_offset + row + k];
        if (k < 4u) {
            begin.a[k] = sequence;
            first.a[k] = phase;
            limits.a[k] = limit;
        } else {
            begin.b[k - 4u] = sequence;
            first.b[k - 4u] = phase;
            limits.b[k - 4u] = limit;
        }
    }
    let period = vec4(params.period);
    let low = below(begin, first, limits);
    let high = below(begin, Rows((first.a + 32u) % period, (first.b + 32u) % period), limits);
    let mask = tail_mask(word, params.word_count, params.tail_bits);
    for (var k = 0u; k < 4u * fours && row + k < rows; k++) {
        let at = (row + k) * params.word_count + word;
        let second = k >= 4u;
        let made = select(vec2(low.a[k & 3u], high.a[k & 3u]), vec2(low.b[k & 3u], high.b[k & 3u]), second);
        let always = select(limits.a[k & 3u], limits.b[k & 3u], second) == 0xffffffffu;
        words[at] = select(made, vec2(0xffffffffu), always) & mask;
    }
}
