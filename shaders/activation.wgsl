// activation: counts of one layer to the thresholds of the next one's input streams.
// Computes:  c = max(counts[i] - offset, 0)
//            thresholds[i] = max(floor, c >= full_scale ? 0xffffffff : c * 2^32 / full_scale)
// Work item: one invocation converts one count
// Exactness: integer (the 64-bit division is done bit by bit); equals cpu_ref/activation.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;

// floor(c * 2^32 / full_scale) for c < full_scale.
fn scaled(c: u32, full_scale: u32) -> u32 {
    var remainder = c;
    var quotient = 0u;
    for (var bit = 0u; bit < 32u; bit++) {
        // The doubled remainder may have 33 bits; the difference below wraps to the right 32.
        let carry = (remainder >> 31u) != 0u;
        remainder <<= 1u;
        quotient <<= 1u;
        if (carry || remainder >= full_scale) {
            remainder -= full_scale;
            quotient |= 1u;
        }
    }
    return quotient;
}

@compute @workgroup_size(wg_size)
fn activation(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_index(workgroup, grid) * wg_size + lane;
    if (i >= params.element_count) {
        return;
    }
    let count = counts[i];
    let c = select(0u, count - params.offset, count > params.offset);
    var threshold = 0xffffffffu;
    if (c < params.full_scale) {
        threshold = scaled(c, params.full_scale);
    }
    thresholds[i] = max(threshold, params.floor);
}
