// load_words: reads every weight once and does nothing with it: an adapter's ceiling for one
// sample. Each invocation reads eight rows, 128 bits at a time.
#import abi

override wg_size: u32 = 8u;

@compute @workgroup_size(wg_size)
fn load_words(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = (workgroup.z * grid.y + workgroup.y) * grid.x + workgroup.x;
    let row_length = params.row_words / 2u;
    let first = group * 64u + lane;
    let rows = min(vec4(first) + vec4(0u, 8u, 16u, 24u), vec4(params.neuron_count - 1u)) * row_length;
    let more = min(vec4(first) + vec4(32u, 40u, 48u, 56u), vec4(params.neuron_count - 1u)) * row_length;
    var all = vec4(0u);
    for (var element = 0u; element < row_length; element++) {
        all ^= weights[rows.x + element] ^ weights[rows.y + element];
        all ^= weights[rows.z + element] ^ weights[rows.w + element];
        all ^= weights[more.x + element] ^ weights[more.y + element];
        all ^= weights[more.z + element] ^ weights[more.w + element];
    }
    // Not foreseeable, so that the loads stay; the comparison fails for random words.
    if (all.x == 0x9e3779b9u && all.y == 0x7f4a7c15u && all.z == 0xf39cc060u) {
        counts[0] = all.w;
    }
}
