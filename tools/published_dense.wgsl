// published_dense: the dense kernel as others have published it, to measure ours against. One
// workgroup of 256 invocations for each neuron and sample, 64-bit words as vec2<u32>, ones counted
// by shifts, masks and a multiplication, a tree reduction in workgroup memory.
#import abi

override wg_size: u32 = 256u;

var<workgroup> partial_sums: array<u32, wg_size>;

fn ones(word: u32) -> u32 {
    let pairs = word - ((word >> 1u) & 0x55555555u);
    let nibbles = (pairs & 0x33333333u) + ((pairs >> 2u) & 0x33333333u);
    return (((nibbles + (nibbles >> 4u)) & 0x0f0f0f0fu) * 0x01010101u) >> 24u;
}

@compute @workgroup_size(wg_size)
fn published_dense(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = (workgroup.z * grid.y + workgroup.y) * grid.x + workgroup.x;
    if (group >= params.neuron_count * params.sample_count) {
        return;
    }
    let neuron = group % params.neuron_count;
    let sample = group / params.neuron_count;
    var sum = 0u;
    for (var w = lane; w < params.row_words; w += wg_size) {
        let product = weights[neuron * params.row_words + w] & inputs[sample * params.row_words + w];
        sum += ones(product.x) + ones(product.y);
    }
    partial_sums[lane] = sum;
    workgroupBarrier();
    for (var stride = wg_size / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            partial_sums[lane] += partial_sums[lane + stride];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        counts[sample * params.count_stride + neuron] = partial_sums[0];
    }
}
