// dense: products of bitstreams accumulated by counting ones.
// Computes:  counts[b, n] = base + popcount(weights[n] AND inputs[b])  (unipolar)
//            counts[b, n] = base - popcount(weights[n] XOR inputs[b])  (bipolar)
//            over the words word_begin .. word_end of a row; base is `initial`, or the
//            count already there when `accumulate` is 1
// Work item: one workgroup computes neuron_tile neurons for sample_tile samples; its
//            invocations share the words of the rows and reduce their partial counts
// Exactness: integer; equals cpu_ref/dense.zig bit for bit
#import abi
#import grid
#import workgroup_sum

// At most 4 each: the register block below has 4 x 4 counts.
override neuron_tile: u32 = 4u;
override sample_tile: u32 = 4u;

@compute @workgroup_size(wg_size)
fn dense(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let neuron_blocks = (params.neuron_count + neuron_tile - 1u) / neuron_tile;
    let sample_blocks = (params.sample_count + sample_tile - 1u) / sample_tile;
    let block = workgroup_index(workgroup, grid);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (block >= neuron_blocks * sample_blocks) {
        return;
    }
    let first_neuron = block % neuron_blocks * neuron_tile;
    let first_sample = block / neuron_blocks * sample_tile;

    // Rows past the last one read the last one again; their counts are not stored.
    var weight_rows: array<u32, 4>;
    var input_rows: array<u32, 4>;
    for (var n = 0u; n < neuron_tile; n++) {
        weight_rows[n] = min(first_neuron + n, params.neuron_count - 1u) * params.row_words;
    }
    for (var s = 0u; s < sample_tile; s++) {
        input_rows[s] = min(first_sample + s, params.sample_count - 1u) * params.row_words;
    }

    var sums: array<array<u32, 4>, 4>;
    for (var w = params.word_begin + lane; w < params.word_end; w += wg_size) {
        var weight_words: array<vec2<u32>, 4>;
        for (var n = 0u; n < neuron_tile; n++) {
            weight_words[n] = weights[weight_rows[n] + w];
        }
        for (var s = 0u; s < sample_tile; s++) {
            let input_word = inputs[input_rows[s] + w];
            for (var n = 0u; n < neuron_tile; n++) {
                let product = select(weight_words[n] & input_word, weight_words[n] ^ input_word, params.bipolar != 0u);
                let ones = countOneBits(product);
                sums[s][n] += ones.x + ones.y;
            }
        }
    }

    for (var s = 0u; s < sample_tile; s++) {
        for (var n = 0u; n < neuron_tile; n++) {
            let ones = workgroup_sum(sums[s][n], lane);
            let sample = first_sample + s;
            let neuron = first_neuron + n;
            if (lane == 0u && sample < params.sample_count && neuron < params.neuron_count) {
                let index = params.count_offset + sample * params.neuron_count + neuron;
                let base = select(params.initial, counts[index], params.accumulate != 0u);
                counts[index] = select(base + ones, base - ones, params.bipolar != 0u);
            }
        }
    }
}
