// trace: decaying traces of spikes, for synapses that learn.
// Computes:  for every neuron and step, M(x) being the low data_width bits of x with their sign:
//              x = M(x * decay >> fraction), and at a spike x = M(x + amplitude)
// Work item: one invocation advances one neuron by every step of the call
// Layout:    the spike of step k is bit first_bit + k of words[word_begin + i * word_stride], the
//            trace after it traces[k * trace_stride + i]; amplitude and decay are two's complement
// Limits:    first_bit + step_count is at most 64; x has 16 bits, so that no product passes 32
// Exactness: integer; equals cpu_ref/trace.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;

@compute @workgroup_size(wg_size)
fn trace(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let neuron = workgroup_index(workgroup, grid) * wg_size + lane;
    if (neuron >= params.neuron_count) {
        return;
    }
    let word = words[params.word_begin + neuron * params.word_stride];
    // A shift to the left and back leaves the low bits and their sign.
    let unused = 32u - params.data_width;
    let amplitude = i32(params.amplitude);
    let decay = i32(params.decay);
    var x = state[neuron];
    for (var k = 0u; k < params.step_count; k++) {
        let bit = params.first_bit + k;
        let half = select(word.y, word.x, bit < 32u);
        x = ((x * decay >> params.fraction) << unused) >> unused;
        if ((half >> (bit % 32u) & 1u) != 0u) {
            x = ((x + amplitude) << unused) >> unused;
        }
        traces[k * params.trace_stride + neuron] = x;
    }
    state[neuron] = x;
}
