// workgroup_sum: tree reduction of one u32 per invocation; wg_size is a power of two.

override wg_size: u32 = 64u;

var<workgroup> partial_sums: array<u32, wg_size>;

// Every invocation of the workgroup must call this; the sum is valid in lane 0.
fn workgroup_sum(value: u32, lane: u32) -> u32 {
    partial_sums[lane] = value;
    workgroupBarrier();
    for (var stride = wg_size / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            partial_sums[lane] += partial_sums[lane + stride];
        }
        workgroupBarrier();
    }
    let sum = partial_sums[0];
    workgroupBarrier();
    return sum;
}
