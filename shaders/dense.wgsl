// dense: products of bitstreams accumulated by counting ones.
// Computes:  counts[b, n] = base + popcount(weights[n] AND inputs[b])  (unipolar)
//            counts[b, n] = base - popcount(weights[n] XOR inputs[b])  (bipolar)
//            over the words word_begin .. word_end of a row; base is `initial`, or the
//            count already there when `accumulate` is 1
// Layout:    count (b, n) lies at count_offset + b * count_stride + n
// Work item: one workgroup computes four neurons for sample_tile samples; its invocations
//            share the words of the rows and add up their counts
// Exactness: integer; equals cpu_ref/dense.zig bit for bit
#import abi
#import grid
#import workgroup_sum

// 1 or 4.
override sample_tile: u32 = 4u;
// The boundary's `bipolar`, fixed when the pipeline is made: it stands in the innermost loop.
override xor_products: bool = false;

// Four neurons' words, their lower and their upper halves.
struct Weights {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn ones(weights: Weights, input: vec2<u32>) -> vec4<u32> {
    let low = select(weights.low & vec4(input.x), weights.low ^ vec4(input.x), xor_products);
    let high = select(weights.high & vec4(input.y), weights.high ^ vec4(input.y), xor_products);
    return countOneBits(low) + countOneBits(high);
}

// Add the workgroup's counts of four neurons to those of one sample, where they exist.
fn store(partial: vec4<u32>, lane: u32, sample: u32, neuron: u32) {
    let total = workgroup_sum(partial, lane);
    if (lane < 4u && neuron + lane < params.neuron_count && sample < params.sample_count) {
        let index = params.count_offset + sample * params.count_stride + neuron + lane;
        let base = select(params.initial, counts[index], params.accumulate != 0u);
        counts[index] = select(base + total[lane], base - total[lane], xor_products);
    }
}

@compute @workgroup_size(wg_size)
fn dense(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let neuron_blocks = (params.neuron_count + 3u) / 4u;
    let sample_blocks = (params.sample_count + sample_tile - 1u) / sample_tile;
    let block = workgroup_index(workgroup, grid);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (block >= neuron_blocks * sample_blocks) {
        return;
    }
    let neuron = block % neuron_blocks * 4u;
    let sample = block / neuron_blocks * sample_tile;

    // Rows past the last one read the last one again; their counts are not stored.
    let n = min(vec4(neuron) + vec4(0u, 1u, 2u, 3u), vec4(params.neuron_count - 1u)) * params.row_words;
    let s = min(vec4(sample) + vec4(0u, 1u, 2u, 3u), vec4(params.sample_count - 1u)) * params.row_words;

    var sums_0 = vec4(0u);
    var sums_1 = vec4(0u);
    var sums_2 = vec4(0u);
    var sums_3 = vec4(0u);
    for (var w = params.word_begin + lane; w < params.word_end; w += wg_size) {
        let w_0 = weights[n.x + w];
        let w_1 = weights[n.y + w];
        let w_2 = weights[n.z + w];
        let w_3 = weights[n.w + w];
        let four = Weights(vec4(w_0.x, w_1.x, w_2.x, w_3.x), vec4(w_0.y, w_1.y, w_2.y, w_3.y));
        sums_0 += ones(four, inputs[s.x + w]);
        if (sample_tile > 1u) {
            sums_1 += ones(four, inputs[s.y + w]);
            sums_2 += ones(four, inputs[s.z + w]);
            sums_3 += ones(four, inputs[s.w + w]);
        }
    }

    store(sums_0, lane, sample, neuron);
    if (sample_tile > 1u) {
        store(sums_1, lane, sample + 1u, neuron);
        store(sums_2, lane, sample + 2u, neuron);
        store(sums_3, lane, sample + 3u, neuron);
    }
}
