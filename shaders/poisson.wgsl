// poisson: Poisson-distributed numbers of weights for every neuron, added to what arrives at a step.
// Computes:  inbox[t % slot_count, i] += weight * n in i32, wrapping, for the steps
//            t = clock[0] + step_offset + k, k in 0 .. step_count; n is the number of entries e with
//            u >= thresholds[e], u being component i % 4 of philox((t, i / 4, 0, domain), key)
// Work item: one invocation has the four neurons of a block, in every step of the call
// Layout:    inbox[slot, i]; the neurons are those of the blocks block_begin .. block_end
// Limits:    thresholds ascend, and there is one at least; a step makes 40 loop trips at most, and
//            a call MAX_TRIPS
// Exactness: integer; equals cpu_ref/poisson.zig bit for bit
#import abi
#import grid
#import philox_block

override wg_size: u32 = 64u;

// How many entries each draw reaches, the highest bit of the number first.
fn reached(draws: vec4<u32>) -> vec4<u32> {
    let entry_count = vec4(params.entry_count);
    var number = vec4(0u);
    for (var bit = 1u << firstLeadingBit(params.entry_count); bit > 0u; bit >>= 1u) {
        let more = number + bit;
        let last = min(more, entry_count) - 1u;
        let entry = vec4(thresholds[last.x], thresholds[last.y], thresholds[last.z], thresholds[last.w]);
        number = select(number, more, (more <= entry_count) & (draws >= entry));
    }
    return number;
}

@compute @workgroup_size(wg_size)
fn poisson(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = params.block_begin + workgroup_index(workgroup, grid) * wg_size + lane;
    if (block >= params.block_end) {
        return;
    }
    let neuron = 4u * block;
    for (var k = 0u; k < params.step_count; k++) {
        let t = clock[0] + params.step_offset + k;
        let draws = philox_ten(vec4(t, block, 0u, params.domain), vec2(params.key_lo, params.key_hi));
        let sums = params.weight * reached(draws);
        let place = (t % params.slot_count) * params.neuron_count + neuron;
        for (var i = 0u; i < min(4u, params.neuron_count - neuron); i++) {
            inbox[place + i] += bitcast<i32>(sums[i]);
        }
    }
}
