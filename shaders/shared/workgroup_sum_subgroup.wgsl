// workgroup_sum_subgroup: workgroup_sum for adapters with the feature "subgroup". Subgroups of any
// size add up their values, workgroup memory joins them where the workgroup has more than one.

override wg_size: u32 = 64u;

struct Invocation {
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroup_count: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
}

// One for each subgroup: there are at most as many as invocations.
var<workgroup> partial_sums: array<vec4<u32>, wg_size>;

// The sum over the whole workgroup, valid in every invocation: ``width`` must be wg_size.
// Every invocation of the workgroup must call this.
fn workgroup_sum(values: vec4<u32>, width: u32, invocation: Invocation) -> vec4<u32> {
    let sums = subgroupAdd(values);
    if (invocation.subgroup_count == 1u) {
        return sums;
    }
    if (invocation.subgroup_lane == 0u) {
        partial_sums[invocation.subgroup] = sums;
    }
    workgroupBarrier();
    var total = vec4(0u);
    for (var subgroup = 0u; subgroup < invocation.subgroup_count; subgroup++) {
        total += partial_sums[subgroup];
    }
    workgroupBarrier();
    return total;
}
