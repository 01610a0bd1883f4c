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
// Limits:    first_bit + step_count is at most 64, delay at most slot_count; traces have 16 bits, so
//            that no product passes 32
// Exactness: integer, sums wrap; equals cpu_ref/stdp.zig bit for bit
#import abi
#import grid
#import word_bits

override wg_size: u32 = 64u;
/// The boundary's `dense`, fixed when the pipeline is made: divisions are slow.
override all_pairs: bool = false;

/// Source and target of a synapse.
fn ends_of(synapse: u32) -> vec2<u32> {
    if (all_pairs) {
        return vec2(synapse / params.target_count, synapse % params.target_count);
    }
    return vec2(sources[synapse], targets[synapse]);
}

fn source_spikes(source: u32) -> vec2<u32> {
    return source_words[params.source_word_begin + source * params.source_word_stride];
}

@compute @workgroup_size(wg_size)
fn stdp(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    let first = 2u * item;
    if (item >= (params.synapse_count + 1u) / 2u) {
        return;
    }
    // Behind the last synapse stands itself again, without any event.
    let alone = first + 1u == params.synapse_count;
    let ends = vec4(ends_of(first), ends_of(select(first + 1u, first, alone)));
    let steps = moved_up(lowest(params.step_count), params.first_bit);
    let second_steps = select(steps, vec2(0u), alone);
    // The halves of the words of both synapses.
    let pre = vec4(source_spikes(ends.x) & steps, source_spikes(ends.z) & second_steps);
    let post = vec4(
        target_words[params.target_word_begin + ends.y] & steps,
        target_words[params.target_word_begin + ends.w] & second_steps,
    );
    var events = pre | post;
    if (all(events == vec4(0u))) {
        return;
    }
    let unused = 32u - params.data_width;
    var pair = weights[item];
    // One loop for both: software adapters run a body once more than it has events.
    while (any(events != vec4(0u))) {
        let half = select(select(select(3u, 2u, events.z != 0u), 1u, events.y != 0u), 0u, events.x != 0u);
        let bit = countTrailingZeros(events[half]);
        events[half] &= events[half] - 1u;
        let side = half / 2u;
        let source = ends[2u * side];
        let destination = ends[2u * side + 1u];
        let step = 32u * (half % 2u) + bit - params.first_bit;
        var weight = i32(pair << (16u - 16u * side)) >> 16u;
        if ((post[half] >> bit & 1u) != 0u) {
            let gain = source_traces[step * params.source_count + source] * i32(params.a_plus) >> params.fraction;
            weight = min(weight + gain, i32(params.w_max));
        } else {
            let loss = target_traces[step * params.target_count + destination] * i32(params.a_minus) >> params.fraction;
            weight = max(weight - loss, i32(params.w_min));
        }
        weight = (weight << unused) >> unused;
        if ((pre[half] >> bit & 1u) != 0u) {
            // t + delay itself may pass 32 bits.
            let arrival = (clock[0] + params.step_offset + step) % params.slot_count + params.delay;
            let slot = arrival - select(0u, params.slot_count, arrival >= params.slot_count);
            atomicAdd(&inbox[slot * params.target_count + destination], weight);
        }
        pair = (pair & ~(0xffffu << (16u * side))) | (u32(weight) & 0xffffu) << (16u * side);
    }
    weights[item] = pair;
}
