// tally: what happens to spikes and potentials on their way to the window, and input by hand.
// append:          puts the steps of a run, which lie in one block of 64, into the ring of blocks
// count_spikes:    adds the spikes of the newest block to fresh, by population and step
// accumulate:      appends these counts to the running totals of a population, which wrap
// bin_potentials:  how many neurons have which potential now, the refractory ones left out
// summarise:       for the scale of the rates and the numbers beside them
// stimulate:       input to neurons that follow one another, in the step that is run next
// The parameters are those of window.wgsl; see scgpu/_render.py.
@group(0) @binding(0) var<storage, read> words: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> neurons: array<u32>;
@group(0) @binding(2) var<storage, read_write> history: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> totals: array<u32>;
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> fresh: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> summary: array<u32>;
@group(0) @binding(7) var<storage, read_write> inbox: array<i32>;

// A workgroup adds the spikes of so many neurons.
const NEURON_CHUNK = 256u;

var<workgroup> sums: array<u32, 64>;
var<workgroup> peaks: array<u32, 64>;
var<workgroup> found: array<atomic<u32>, BIN_COUNT>;

fn newest_slot() -> u32 {
    return ((params.step - 1u) / 64u) & (params.ring_blocks - 1u);
}

// Spikes of the population in all steps before t, for t within the ring or 0.
fn total_before(t: u32) -> u32 {
    if (t == 0u) {
        return 0u;
    }
    let ring = 64u * params.ring_blocks;
    return totals[params.population * ring + ((t - 1u) & (ring - 1u))];
}

// The lowest so many bits of a word.
fn lowest(bits: u32) -> vec2<u32> {
    let low = select(0xffffffffu >> (32u - min(bits, 32u)), 0u, bits == 0u);
    let high = select(0xffffffffu >> (64u - max(bits, 33u)), 0u, bits <= 32u);
    return vec2(low, high);
}

fn item(workgroup: vec3<u32>, lane: u32) -> u32 {
    return (workgroup.x + workgroup.y * params.workgroups_per_row) * 64u + lane;
}

@compute @workgroup_size(64)
fn append(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let neuron = item(workgroup, lane);
    if (neuron >= params.count) {
        return;
    }
    let first_bit = params.begin % 64u;
    let before = lowest(first_bit);
    let mine = lowest(first_bit + params.step - params.begin) & ~before;
    let place = newest_slot() * params.total + params.first + neuron;
    history[place] = (history[place] & before) | (words[neuron] & mine);
}

// A lane is a step of the block.
@compute @workgroup_size(64)
fn count_spikes(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let begin = (workgroup.x + workgroup.y * params.workgroups_per_row) * NEURON_CHUNK;
    let end = min(begin + NEURON_CHUNK, params.count);
    let row = newest_slot() * params.total + params.first;
    var spikes = 0u;
    for (var i = begin; i < end; i++) {
        spikes += (history[row + i][lane / 32u] >> (lane % 32u)) & 1u;
    }
    if (spikes != 0u) {
        atomicAdd(&fresh[params.population * 64u + lane], spikes);
    }
}

@compute @workgroup_size(64)
fn accumulate(@builtin(local_invocation_index) lane: u32) {
    let block_begin = (params.step - 1u) / 64u * 64u;
    sums[lane] = atomicLoad(&fresh[params.population * 64u + lane]);
    workgroupBarrier();
    var total = total_before(block_begin);
    for (var k = 0u; k <= lane; k++) {
        total += sums[k];
    }
    let ring = 64u * params.ring_blocks;
    totals[params.population * ring + ((block_begin + lane) & (ring - 1u))] = total;
}

@compute @workgroup_size(64)
fn bin_potentials(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    atomicStore(&found[lane], 0u);
    workgroupBarrier();
    let neuron = item(workgroup, lane);
    if (neuron < params.count) {
        let pair = neurons[neuron];
        if (pair >> 16u == 0u) {
            let v = f32(i32(pair << 16u) >> 16u);
            let place = (v - params.rest) / max(params.threshold - params.rest, 1.0);
            let bin = clamp((place + 1.0) * 0.5 * f32(BIN_COUNT), 0.0, f32(BIN_COUNT - 1u));
            atomicAdd(&found[u32(bin)], 1u);
        }
    }
    workgroupBarrier();
    let ones = atomicLoad(&found[lane]);
    if (ones != 0u) {
        atomicAdd(&bins[params.population * BIN_COUNT + lane], ones);
    }
}

// summary[population] = the most spikes in smooth_steps steps that end in the ring's visible part,
// and the spikes of the last recent_steps steps.
@compute @workgroup_size(64)
fn summarise(@builtin(local_invocation_index) lane: u32) {
    let visible = min(params.step, params.visible_steps);
    var peak = 0u;
    // Windows that overlap by half see every peak well enough for a scale.
    let stride = max(params.smooth_steps / 2u, 1u);
    for (var back = lane * stride; back < visible; back += 64u * stride) {
        let end = params.step - back;
        peak = max(peak, total_before(end) - total_before(end - min(end, params.smooth_steps)));
    }
    peaks[lane] = peak;
    workgroupBarrier();
    if (lane == 0u) {
        for (var k = 1u; k < 64u; k++) {
            peak = max(peak, peaks[k]);
        }
        let recent = min(params.step, params.recent_steps);
        summary[2u * params.population] = peak;
        summary[2u * params.population + 1u] = total_before(params.step) - total_before(params.step - recent);
    }
}

@compute @workgroup_size(64)
fn stimulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let k = item(workgroup, lane);
    if (k < params.chosen) {
        let neuron = (params.first_chosen + k) % params.count;
        inbox[(params.step % params.slot_count) * params.count + neuron] += params.current;
    }
}
