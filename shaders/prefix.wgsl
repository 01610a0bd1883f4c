// prefix: ones among the first positions of a comparator sequence, in entries of 32 positions.
// Computes:  entries[s, i, k] = bits of words[sample_begin + s, i] at positions order[i, 32k ..
//            32k + 32] in the lower half, and how many of the positions before them hold ones in the upper half,
//            for the inputs input_begin .. input_end; order_bits 0 stands for order[i, k] = k
// Work item: stream_lanes invocations make the entries of one stream
// Padding:   bits past the last position are 0; a row has length / 32 + 1 entries
// Exactness: integer; equals cpu_ref/prefix.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;
// The boundary's `order_bits`, fixed when the pipeline is made: it stands in the innermost loop.
override position_bits: u32 = 0u;

// Invocations that share a stream; a divisor of wg_size.
override stream_lanes: u32 = 8u;

var<workgroup> run_ones: array<u32, wg_size>;

fn bit(words_row: u32, t: u32) -> u32 {
    return (words[words_row + t / 64u][(t / 32u) & 1u] >> (t & 31u)) & 1u;
}

// Bits 32k .. 32k + 32 of a stream in its order.
fn ordered(words_row: u32, order_row: u32, k: u32) -> u32 {
    if (32u * k >= params.length) {
        return 0u;
    }
    if (position_bits == 0u) {
        return words[words_row + k / 2u][k & 1u];
    }
    var bits = 0u;
    let count = min(32u, params.length - 32u * k);
    if (position_bits == 16u) {
        for (var b = 0u; b < count; b += 2u) {
            let pair = order[order_row + 16u * k + b / 2u];
            bits |= bit(words_row, pair & 0xffffu) << b;
            bits |= bit(words_row, pair >> 16u) << (b + 1u);
        }
        // The last pair of an odd length has one position.
        return bits & (0xffffffffu >> (32u - count));
    }
    for (var b = 0u; b < count; b++) {
        bits |= bit(words_row, order[order_row + 32u * k + b]) << b;
    }
    return bits;
}

@compute @workgroup_size(wg_size)
fn prefix(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let inputs = params.input_end - params.input_begin;
    let first_lane = lane - lane % stream_lanes;
    let item = (workgroup_index(workgroup, grid) * wg_size + lane) / stream_lanes;
    let present = item < params.sample_count * inputs;
    let input = item % inputs;
    let row = item / inputs * params.input_count + params.input_begin + input;
    let words_row = (params.sample_begin * params.input_count + row) * ((params.length + 63u) / 64u);
    let order_row = input * params.order_stride;

    // Each invocation makes a run of the stream's entries, counting from the run's beginning ...
    let entry_count = params.length / 32u + 1u;
    let run = (entry_count + stream_lanes - 1u) / stream_lanes;
    let begin = (lane - first_lane) * run;
    let end = select(0u, min(begin + run, entry_count), present);
    var ones = 0u;
    for (var k = begin; k < end; k++) {
        let bits = ordered(words_row, order_row, k);
        entries[row * entry_count + k] = vec2(bits, ones);
        ones += countOneBits(bits);
    }

    // ... and adds what the runs before it hold.
    run_ones[lane] = ones;
    workgroupBarrier();
    var before = 0u;
    for (var other = first_lane; other < lane; other++) {
        before += run_ones[other];
    }
    for (var k = begin; k < end; k++) {
        entries[row * entry_count + k].y += before;
    }
}
