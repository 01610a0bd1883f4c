// workgroup_sum: four u32 of each invocation, added up by a tree in workgroup memory.

override wg_size: u32 = 64u;

struct Invocation {
    @builtin(local_invocation_index) lane: u32,
}

var<workgroup> partial_sums: array<vec4<u32>, wg_size>;

// The sum over each aligned group of ``width`` invocations (a power of two), valid in all of them.
// Every invocation of the workgroup must call this.
fn workgroup_sum(values: vec4<u32>, width: u32, invocation: Invocation) -> vec4<u32> {
    let lane = invocation.lane;
    partial_sums[lane] = values;
    workgroupBarrier();
    for (var stride = width / 2u; stride > 0u; stride /= 2u) {
        if (lane % width < stride) {
            partial_sums[lane] += partial_sums[lane + stride];
        }
        workgroupBarrier();
    }
    let sums = partial_sums[lane - lane % width];
    workgroupBarrier();
    return sums;
}
