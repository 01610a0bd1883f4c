// lookup: products with shared weight streams, by the rank of each weight.
// Computes:  counts[b, n] = base + sum of P(ranks[i, n])                          (unipolar)
//            counts[b, n] = base - sum of ranks[i, n] + ones[b, i] - 2 P(...)    (bipolar)
//            over the inputs input_begin .. input_end, P(r) being the ones of stream (b, i) among
//            its first r positions: entry r / 32 of entries[b, i] holds the ones before it in its
//            upper half and 32 positions in its lower half
// Layout:    count (b, n) lies at count_offset + b * count_stride + n; a row of ranks has
//            rank_stride u32 elements, each two ranks of 16 bits or one of 32
// Work item: one workgroup computes wg_size / input_lanes neurons for sample_tile samples; the
//            input_lanes invocations of a neuron share its inputs
// Exactness: integer; equals cpu_ref/lookup.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;
override input_lanes: u32 = 1u;
// 1 or 4.
override sample_tile: u32 = 4u;
// The boundary's `bipolar`, fixed when the pipeline is made: it stands in the innermost loop.
override xor_products: bool = false;

var<workgroup> partial_counts: array<vec4<u32>, wg_size>;

fn rank_of(input: u32, neuron: u32) -> u32 {
    let row = input * params.rank_stride;
    if (params.rank_bits == 16u) {
        return (ranks[row + neuron / 2u] >> (16u * (neuron & 1u))) & 0xffffu;
    }
    return ranks[row + neuron];
}

// What an input adds to a count: ones of AND, or of XOR for bipolar streams.
fn ones_of(row: u32, rank: u32) -> u32 {
    let entry = entries[row + rank / 32u];
    let both = entry.y + countOneBits(entry.x & ((1u << (rank & 31u)) - 1u));
    if (xor_products) {
        let last = entries[row + params.length / 32u];
        return rank + last.y + countOneBits(last.x) - 2u * both;
    }
    return both;
}

@compute @workgroup_size(wg_size)
fn lookup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let neuron_lanes = wg_size / input_lanes;
    let neuron_blocks = (params.neuron_count + neuron_lanes - 1u) / neuron_lanes;
    let sample_blocks = (params.sample_count + sample_tile - 1u) / sample_tile;
    let block = workgroup_index(workgroup, grid);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (block >= neuron_blocks * sample_blocks) {
        return;
    }
    let neuron = block % neuron_blocks * neuron_lanes + lane % neuron_lanes;
    let sample = block / neuron_blocks * sample_tile;
    // Neurons and samples past the last one compute the last one again; their counts are not stored.
    let n = min(neuron, params.neuron_count - 1u);
    let row_entries = params.length / 32u + 1u;
    let s = min(vec4(sample) + vec4(0u, 1u, 2u, 3u), vec4(params.sample_count - 1u)) * params.input_count;

    var sums = vec4(0u);
    for (var i = params.input_begin + lane / neuron_lanes; i < params.input_end; i += input_lanes) {
        let rank = rank_of(i, n);
        sums.x += ones_of((s.x + i) * row_entries, rank);
        if (sample_tile > 1u) {
            sums.y += ones_of((s.y + i) * row_entries, rank);
            sums.z += ones_of((s.z + i) * row_entries, rank);
            sums.w += ones_of((s.w + i) * row_entries, rank);
        }
    }

    if (input_lanes > 1u) {
        partial_counts[lane] = sums;
        workgroupBarrier();
        for (var stride = wg_size / 2u; stride >= neuron_lanes; stride /= 2u) {
            if (lane < stride) {
                partial_counts[lane] += partial_counts[lane + stride];
            }
            workgroupBarrier();
        }
        sums = partial_counts[lane];
    }
    if (lane < neuron_lanes && neuron < params.neuron_count) {
        for (var t = 0u; t < sample_tile && sample + t < params.sample_count; t++) {
            let index = params.count_offset + (sample + t) * params.count_stride + neuron;
            let base = select(params.initial, counts[index], params.accumulate != 0u);
            counts[index] = select(base + sums[t], base - sums[t], xor_products);
        }
    }
}
