// drive: what comes into neurons in some steps, from synapses and from outside.
// Computes:  for every step t = clock[0] + step_offset + step and neuron i:
//              drives[step][i] = inbox[t % slot_count][i] + constants[i] + currents[i][t], cut to
//                                i16 (currents are 0 from current_step_count on);
//              inbox[t % slot_count][i] = 0
// Work item: one invocation makes the drives of two neighbouring neurons in one slot's steps
// Layout:    inbox: slots of neuron_count; constant i at i * constant_stride; current (i, t) at
//            i * current_neuron_stride + t; drives: rows of row_stride
// Limits:    row_stride is even, so that no two invocations share 32 bits
// Exactness: integer, the sum wraps at 32 bits; equals cpu_ref/drive.zig bit for bit
#import abi
#import grid
#import half

override wg_size: u32 = 64u;

fn drive_of(neuron: u32, t: u32) -> u32 {
    let place = t % params.slot_count * params.neuron_count + neuron;
    let constant = neuron * params.constant_stride;
    var total = inbox[place] + half(constants[constant / 2u], constant);
    if (t < params.current_step_count) {
        let current = neuron * params.current_neuron_stride + t;
        total += half(currents[current / 2u], current);
    }
    inbox[place] = 0;
    return u32(clamp(total, -0x8000, 0x7fff)) & 0xffffu;
}

@compute @workgroup_size(wg_size)
fn drive(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pairs = (params.neuron_count + 1u) / 2u;
    let item = workgroup_index(workgroup, grid) * wg_size + lane;
    // Steps that share a slot are one invocation's, in order.
    let slots = min(params.step_count, params.slot_count);
    if (item >= pairs * slots) {
        return;
    }
    let neuron = 2u * (item % pairs);
    for (var step = item / pairs; step < params.step_count; step += params.slot_count) {
        let t = clock[0] + params.step_offset + step;
        let place = (step * params.row_stride + neuron) / 2u;
        let low = drive_of(neuron, t);
        if (neuron + 1u < params.neuron_count) {
            drives[place] = low | drive_of(neuron + 1u, t) << 16u;
        } else {
            drives[place] = (drives[place] & 0xffff0000u) | low;
        }
    }
}
