// dense: products of bitstreams accumulated by counting ones.
// Computes:  counts[b, n] = base + popcount(weights[n] AND inputs[b])  (unipolar)
//            counts[b, n] = base - popcount(weights[n] XOR inputs[b])  (bipolar)
//            over the words word_begin .. word_end of a row; base is `initial`, or the
//            count already there when `accumulate` is 1
// Layout:    count (b, n) lies at count_offset + b * count_stride + n
// Work item: a workgroup is a grid of lanes_k x lanes_n x lanes_s invocations. Each computes
//            neuron_tile neurons for sample_tile samples, lanes_n neurons and lanes_s samples
//            apart; lanes_k invocations share the words of their rows and add up their counts
// Exactness: integer; equals cpu_ref/dense.zig bit for bit
#import abi
#import grid
#import workgroup_sum
#import words

// Invocations that share the words of a row (a power of two), and that have neurons of their own.
override lanes_k: u32 = 8u;
override lanes_n: u32 = 8u;
override lanes_s: u32 = wg_size / (lanes_k * lanes_n);
// 1, 4 or 8; and 1, 2, 4 or 8. The tile is written out below, not looped over: indices that the
// compiler knows keep it in registers, and software rasterisers limit loop trips.
override neuron_tile: u32 = 4u;
override sample_tile: u32 = 1u;
// Rows go through workgroup memory, stage_depth elements at a time, where lanes_k is 1.
override stage_depth: u32 = 0u;
// Count with full adders: fewer counts for more logic.
override carry_save: bool = false;
// The boundary's `bipolar`, fixed when the pipeline is made: it stands in the innermost loop.
override xor_products: bool = false;

override group_neurons: u32 = lanes_n * neuron_tile;
override group_samples: u32 = lanes_s * sample_tile;
// One more than the rows, so that neighbours in a row lie in different banks.
override stage_stride: u32 = group_neurons + group_samples + 1u;

var<workgroup> stage: array<Words, stage_stride * stage_depth + 1u>;

// Counts of neurons 0 to 3 of sample s at s, of neurons 4 to 7 at s + 8.
alias Sums = array<vec4<u32>, 16>;
// Where the rows of a tile begin.
alias Rows = array<u32, 8>;

fn weight(at: u32) -> Words {
    if (stage_depth > 0u) {
        return stage[at];
    }
    return weights[at];
}

fn product(weight: Words, input: Words) -> u32 {
    return ones(select(weight & input, weight ^ input, xor_products));
}

// Add the products of one element of eight weight rows and an input row.
fn add_sample(sums: ptr<function, Sums>, sample: u32, at: u32, w: array<Words, 8>) {
    var input: Words;
    if (stage_depth > 0u) {
        input = stage[at];
    } else {
        input = inputs[at];
    }
    (*sums)[sample].x += product(w[0], input);
    if (neuron_tile > 1u) {
        (*sums)[sample].y += product(w[1], input);
        (*sums)[sample].z += product(w[2], input);
        (*sums)[sample].w += product(w[3], input);
    }
    if (neuron_tile > 4u) {
        (*sums)[sample + 8u].x += product(w[4], input);
        (*sums)[sample + 8u].y += product(w[5], input);
        (*sums)[sample + 8u].z += product(w[6], input);
        (*sums)[sample + 8u].w += product(w[7], input);
    }
}

// Add the products of one element of each row of a tile.
fn add_tile(sums: ptr<function, Sums>, n: Rows, s: Rows, element: u32) {
    var w: array<Words, 8>;
    w[0] = weight(n[0] + element);
    if (neuron_tile > 1u) {
        w[1] = weight(n[1] + element);
        w[2] = weight(n[2] + element);
        w[3] = weight(n[3] + element);
    }
    if (neuron_tile > 4u) {
        w[4] = weight(n[4] + element);
        w[5] = weight(n[5] + element);
        w[6] = weight(n[6] + element);
        w[7] = weight(n[7] + element);
    }
    add_sample(sums, 0u, s[0] + element, w);
    if (sample_tile > 1u) {
        add_sample(sums, 1u, s[1] + element, w);
    }
    if (sample_tile > 2u) {
        add_sample(sums, 2u, s[2] + element, w);
        add_sample(sums, 3u, s[3] + element, w);
    }
    if (sample_tile > 4u) {
        add_sample(sums, 4u, s[4] + element, w);
        add_sample(sums, 5u, s[5] + element, w);
        add_sample(sums, 6u, s[6] + element, w);
        add_sample(sums, 7u, s[7] + element, w);
    }
}

// Bring stage_depth elements of the workgroup's rows to workgroup memory, zeros past the end.
fn fill_stage(lane: u32, neuron: u32, sample: u32, begin: u32, end: u32, row_length: u32) {
    for (var at = lane; at < (stage_stride - 1u) * stage_depth; at += wg_size) {
        let row = at / stage_depth;
        let element = begin + at % stage_depth;
        var words = Words();
        if (element < end) {
            if (row < group_neurons) {
                words = weights[min(neuron + row, params.neuron_count - 1u) * row_length + element];
            } else {
                words = inputs[min(sample + row - group_neurons, params.sample_count - 1u) * row_length + element];
            }
        }
        stage[at % stage_depth * stage_stride + row] = words;
    }
}

fn store(total: u32, sample: u32, neuron: u32) {
    if (neuron < params.neuron_count && sample < params.sample_count) {
        let index = params.count_offset + sample * params.count_stride + neuron;
        let base = select(params.initial, counts[index], params.accumulate != 0u);
        counts[index] = select(base + total, base - total, xor_products);
    }
}

// Store the counts of four neurons, lanes_n apart, for one sample.
fn store_four(sums: vec4<u32>, sample: u32, neuron: u32, invocation: Invocation) {
    var total = sums;
    if (lanes_k > 1u) {
        total = workgroup_sum(sums, lanes_k, invocation);
    }
    if (invocation.lane % lanes_k == 0u) {
        store(total.x, sample, neuron);
        if (neuron_tile > 1u) {
            store(total.y, sample, neuron + lanes_n);
            store(total.z, sample, neuron + 2u * lanes_n);
            store(total.w, sample, neuron + 3u * lanes_n);
        }
    }
}

fn store_sample(sums: ptr<function, Sums>, index: u32, sample: u32, neuron: u32, invocation: Invocation) {
    store_four((*sums)[index], sample, neuron, invocation);
    if (neuron_tile > 4u) {
        store_four((*sums)[index + 8u], sample, neuron + 4u * lanes_n, invocation);
    }
}

@compute @workgroup_size(wg_size)
fn dense(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    invocation: Invocation,
) {
    let neuron_groups = (params.neuron_count + group_neurons - 1u) / group_neurons;
    let sample_groups = (params.sample_count + group_samples - 1u) / group_samples;
    let group = workgroup_index(workgroup, grid);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (group >= neuron_groups * sample_groups) {
        return;
    }
    let group_neuron = group % neuron_groups * group_neurons;
    let group_sample = group / neuron_groups * group_samples;
    let lane_k = invocation.lane % lanes_k;
    let lane_n = invocation.lane / lanes_k % lanes_n;
    let lane_s = invocation.lane / (lanes_k * lanes_n);
    let neuron = group_neuron + lane_n;
    let sample = group_sample + lane_s;

    let row_length = params.row_words / words_per_element;
    let begin = params.word_begin / words_per_element;
    let end = params.word_end / words_per_element;
    var n: Rows;
    var s: Rows;
    for (var i = 0u; i < 8u; i++) {
        if (stage_depth > 0u) {
            n[i] = lane_n + i * lanes_n;
            s[i] = group_neurons + lane_s + i * lanes_s;
        } else {
            // Rows past the last one read the last one again; their counts are not stored.
            n[i] = min(neuron + i * lanes_n, params.neuron_count - 1u) * row_length;
            s[i] = min(sample + i * lanes_s, params.sample_count - 1u) * row_length;
        }
    }

    var sums: Sums;
    if (stage_depth > 0u) {
        for (var staged = begin; staged < end; staged += stage_depth) {
            fill_stage(invocation.lane, group_neuron, group_sample, staged, end, row_length);
            workgroupBarrier();
            for (var element = 0u; element < stage_depth; element++) {
                add_tile(&sums, n, s, element * stage_stride);
            }
            workgroupBarrier();
        }
    } else {
        for (var element = begin + lane_k; element < end; element += lanes_k) {
            add_tile(&sums, n, s, element);
        }
    }

    store_sample(&sums, 0u, sample, neuron, invocation);
    if (sample_tile > 1u) {
        store_sample(&sums, 1u, sample + lanes_s, neuron, invocation);
    }
    if (sample_tile > 2u) {
        store_sample(&sums, 2u, sample + 2u * lanes_s, neuron, invocation);
        store_sample(&sums, 3u, sample + 3u * lanes_s, neuron, invocation);
    }
    if (sample_tile > 4u) {
        store_sample(&sums, 4u, sample + 4u * lanes_s, neuron, invocation);
        store_sample(&sums, 5u, sample + 5u * lanes_s, neuron, invocation);
        store_sample(&sums, 6u, sample + 6u * lanes_s, neuron, invocation);
        store_sample(&sums, 7u, sample + 7u * lanes_s, neuron, invocation);
    }
}
