//! activation: counts of one layer to the thresholds of the next one's input streams.
//! Computes:  c = max(counts[i] - offset, 0)
//!            thresholds[i] = max(floor, c >= full_scale ? 0xffffffff : c * 2^32 / full_scale)
//! Exactness: integer; equals shaders/activation.wgsl bit for bit

const abi = @import("abi.zig");

pub fn activation(call: *const abi.Activation) callconv(.c) void {
    const offset = call.offset;
    const full_scale = call.full_scale;
    const floor = call.floor;
    const counts = call.counts[0..call.element_count];
    const thresholds = call.thresholds[0..call.element_count];
    for (counts, thresholds) |count, *threshold| {
        const c: u64 = count -| offset;
        const scaled: u32 = if (c >= full_scale) 0xffff_ffff else @intCast((c << 32) / full_scale);
        threshold.* = @max(floor, scaled);
    }
}
