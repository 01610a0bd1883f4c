// philox: Philox4x32 random words.
// Computes:  words[4i ..][0..4] = philox4x32(counters[4i ..][0..4], keys[2i ..][0..2], rounds)
// Work item: one invocation computes one block
// Exactness: integer; equals cpu_ref/philox.zig bit for bit
#import abi
#import grid
#import philox_block

override wg_size: u32 = 64u;

@compute @workgroup_size(wg_size)
fn philox(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_index(workgroup, grid) * wg_size + lane;
    if (i >= params.block_count) {
        return;
    }
    let counter = vec4(counters[4u * i], counters[4u * i + 1u], counters[4u * i + 2u], counters[4u * i + 3u]);
    let block = philox_block(counter, vec2(keys[2u * i], keys[2u * i + 1u]), params.rounds);
    words[4u * i] = block.x;
    words[4u * i + 1u] = block.y;
    words[4u * i + 2u] = block.z;
    words[4u * i + 3u] = block.w;
}
