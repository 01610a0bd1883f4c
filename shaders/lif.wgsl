// lif: leaky integrate-and-fire neurons in fixed point, many steps for each.
// Computes:  for every neuron and step, M(x) being the low data_width bits of x with their sign:
//              refractory > 0:  refractory -= 1, v = v_rest, no spike
//              else:            v = M(v + (M2(v_rest - v) * leak_k >> fraction)
//                                       + (current * gain_k >> fraction) + noise),
//                               M2 being 2 * data_width bits, 16 at most;
//                               v >= v_threshold: a spike, v = v_reset, refractory = period
// Work item: one invocation advances one neuron by every step of the call
// Layout:    parameter p of neuron i at p * parameter_stride + i (i = 0 where the stride is 1), in
//            the order leak_k, gain_k, v_rest, v_reset, v_threshold, period; state 2 i is v, 2 i + 1
//            refractory; current (i, t) at i * current_neuron_stride + t * current_step_stride;
//            records have a row for each neuron; the bit of step t is that of a bitstream
// Padding:   bits past the last step of the last word are 0; bits before first_bit stay
// Limits:    voltage_stride is even, so that no two invocations share 32 bits; first_bit is 0, or
//            first_bit + step_count at most 64; at most PASS_STEPS steps
// Exactness: integer; equals cpu_ref/lif.zig bit for bit
#import abi
#import grid
#import half
#import word_bits

override wg_size: u32 = 64u;
/// 1 where an input changes from step to step; for record_spikes and record_voltages. Software
/// adapters run the body of every `if` in every step.
override varying_input: u32 = 1u;
override spike_records: u32 = 1u;
override voltage_records: u32 = 1u;

fn parameter(number: u32, neuron: u32) -> i32 {
    let index = number * params.parameter_stride + select(0u, neuron, params.parameter_stride > 1u);
    return half(parameters[index / 2u], index);
}

fn current_at(neuron: u32, step: u32) -> i32 {
    let index = neuron * params.current_neuron_stride + step * params.current_step_stride;
    return half(currents[index / 2u], index);
}

fn noise_at(neuron: u32, step: u32) -> i32 {
    let index = neuron * params.noise_neuron_stride + step * params.noise_step_stride;
    return half(noises[index / 2u], index);
}

@compute @workgroup_size(wg_size)
fn lif(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let neuron = workgroup_index(workgroup, grid) * wg_size + lane;
    if (neuron >= params.neuron_count) {
        return;
    }
    let leak_k = parameter(0u, neuron);
    let gain_k = parameter(1u, neuron);
    let v_rest = parameter(2u, neuron);
    let v_reset = parameter(3u, neuron);
    let v_threshold = parameter(4u, neuron);
    let period = parameter(5u, neuron);
    // A shift to the left and back leaves the low bits and their sign.
    let unused = 32u - params.data_width;
    let unused_difference = 32u - min(2u * params.data_width, 16u);

    var v = half(state[neuron], 0u);
    var refractory = half(state[neuron], 1u);
    var drive = (current_at(neuron, params.step_begin) * gain_k >> params.fraction) + noise_at(neuron, params.step_begin);
    var spike_count = 0u;
    let first_record = params.record_begin;
    var pair = 0u;
    if (voltage_records != 0u && first_record % 2u == 1u) {
        pair = voltages[neuron * (params.voltage_stride / 2u) + first_record / 2u] & 0xffffu;
    }
    for (var begin = 0u; begin < params.step_count; begin += 64u) {
        var word = vec2(0u);
        for (var side = 0u; side < 2u; side++) {
            let first = begin + 32u * side;
            let end = min(first + 32u, params.step_count);
            var bits = 0u;
            for (var step = first; step < end; step++) {
                let t = first_record + step;
                if (varying_input != 0u) {
                    let now = params.step_begin + step;
                    drive = (current_at(neuron, now) * gain_k >> params.fraction) + noise_at(neuron, now);
                }
                let difference = ((v_rest - v) << unused_difference) >> unused_difference;
                let reached = ((v + (difference * leak_k >> params.fraction) + drive) << unused) >> unused;
                let resting = refractory > 0;
                let spike = !resting && reached >= v_threshold;
                v = select(select(reached, v_reset, spike), v_rest, resting);
                refractory = select(select(refractory, period, spike), refractory - 1, resting);
                bits |= u32(spike) << (step % 32u);
                if (spike_records != 0u) {
                    spikes[neuron * params.spike_stride + t] = u32(spike);
                }
                if (voltage_records != 0u) {
                    let shown = u32((v << unused) >> unused) & 0xffffu;
                    if (t % 2u == 0u) {
                        pair = shown;
                    } else {
                        voltages[neuron * (params.voltage_stride / 2u) + t / 2u] = pair | shown << 16u;
                    }
                }
            }
            word[side] = bits;
        }
        spike_count += countOneBits(word.x) + countOneBits(word.y);
        if (params.record_words != 0u) {
            let index = neuron * params.row_words + params.word_begin + begin / 64u;
            if (params.first_bit != 0u) {
                word = moved_up(word, params.first_bit) | (words[index] & lowest(params.first_bit));
            }
            words[index] = word;
        }
    }
    let last = first_record + params.step_count;
    if (voltage_records != 0u && last % 2u == 1u) {
        let index = neuron * (params.voltage_stride / 2u) + last / 2u;
        voltages[index] = (voltages[index] & 0xffff0000u) | pair;
    }
    state[neuron] = (u32(v) & 0xffffu) | u32(refractory) << 16u;
    counts[neuron] += spike_count;
}
