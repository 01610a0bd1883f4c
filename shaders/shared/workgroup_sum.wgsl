// workgroup_sum: tree reduction of four u32 per invocation; wg_size is a power of two.

override wg_size: u32 = 64u;

var<workgroup> partial_sums: array<vec4<u32>, wg_size>;

// Every invocation of the workgroup must call this; the sums are valid in all of them.
fn workgroup_sum(values: vec4<u32>, lane: u32) -> vec4<u32> {
    partial_sums[lane] = values;
    workgroupBarrier();
    for (var stride = wg_size / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            partial_sums[lane] += partial_sums[lane + stride];
        }
        workgroupBarrier();
    }
    let sums = partial_sums[0];
    workgroupBarrier();
    return sums;
}
