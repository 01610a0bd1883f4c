// stdp: synapses that learn by pairs of spikes, and deliver what they have learnt.
// Computes:  for every synapse and step, M(x) being the low data_width bits of x with their sign,
//            a and b the traces of its source and its target after the step:
//              the target fired:    w = M(min(w + (a * a_plus >> fraction), w_max))
//              else, source fired:  w = M(max(w - (b * a_minus >> fraction), w_min))
//              the source fired:    inbox[(t + delay) % slot_count, target] += w
//            for the steps t = clock + step_offset + k, k from 0 to step_count - 1
// Work item: one invocation has the two synapses whose weights share 32 bits
// Layout:    the spike of step k is bit first_bit + k of a neuron's word; traces have a row for each
//            step, the inbox one for each slot; synapse s joins sources[s] and targets[s], or where
//            dense is 1 source s / target_count and target s % target_count
// Padding:   the half of the last 32 bits that is no weight stays as it is
// Limits:    first_bit + step_count is at most 64; traces have 16 bits, so that no product passes 32
// Exactness: integer, sums wrap; equals cpu_ref/stdp.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;

/// 64 bits of which the lowest `count` are set.
fn lowest(count: u32) -> vec2<u32> {
    let low = select(0xffffffffu, (1u << count) - 1u, count < 32u);
    let high = select(0xffffffffu, (1u << (count - 32u)) - 1u, count < 64u);
    return vec2(low, select(high, 0u, count <= 32u));
}

/// The weight of a synapse after all steps.
fn learn(synapse: u32, initial: i32) -> i32 {
    var source: u32;
    var destination: u32;
    if (params.dense != 0u) {
        source = synapse / params.target_count;
        destination = synapse % params.target_count;
    } else {
        source = sources[synapse];
        destination = targets[synapse];
    }
    let interval = lowest(params.first_bit + params.step_count) & ~lowest(params.first_bit);
    let pre = source_words[params.source_word_begin + source * params.source_word_stride] & interval;
    let post = target_words[params.target_word_begin + destination] & interval;
    let unused = 32u - params.data_width;
    let first_slot = (clock[0] + params.step_offset) % params.slot_count + params.delay % params.slot_count;

    var weight = initial;
    var events = pre | post;
    while (any(events != vec2(0u))) {
        let half = select(0u, 1u, events.x == 0u);
        let bit = countTrailingZeros(events[half]);
        let step = 32u * half + bit - params.first_bit;
        let one = select(vec2(0u, 1u << bit), vec2(1u << bit, 0u), half == 0u);
        events &= ~one;
        if (any((post & one) != vec2(0u))) {
            let gain = source_traces[step * params.source_count + source] * i32(params.a_plus) >> params.fraction;
            weight = min(weight + gain, i32(params.w_max));
        } else {
            let loss = target_traces[step * params.target_count + destination] * i32(params.a_minus) >> params.fraction;
            weight = max(weight - loss, i32(params.w_min));
        }
        weight = (weight << unused) >> unused;
        if (any((pre & one) != vec2(0u))) {
            let slot = (first_slot + step) % params.slot_count;
            atomicAdd(&inbox[slot * params.target_count + destination], weight);
        }
    }
    return weight;
}

@compute @workgroup_size(wg_size)
fn stdp(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    if (item >= (params.synapse_count + 1u) / 2u) {
        return;
    }
    let pair = weights[item];
    var learnt = pair;
    for (var side = 0u; side < 2u && 2u * item + side < params.synapse_count; side++) {
        let shift = 16u * side;
        let weight = learn(2u * item + side, i32(pair << (16u - shift)) >> 16u);
        learnt = (learnt & ~(0xffffu << shift)) | (u32(weight) & 0xffffu) << shift;
    }
    if (learnt != pair) {
        weights[item] = learnt;
    }
}
