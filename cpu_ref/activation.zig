//! activation: counts of one layer to the thresholds of the next one's input streams.
//! Computes:  c = max(counts[i] - offset, 0)
//!            thresholds[i] = max(floor, c >= full_scale ? 0xffffffff : c * 2^32 / full_scale)
//! Exactness: integer; equals shaders/activation.wgsl bit for bit

const std = @import("std");
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

test "thresholds at the edges of the scale" {
    const counts = [_]u32{ 0, 4, 5, 6, 7, 14, 15, 0xffff_ffff };
    var thresholds: [counts.len]u32 = undefined;
    activation(&.{
        .element_count = counts.len,
        .offset = 5,
        .full_scale = 10,
        .floor = 3,
        .counts = &counts,
        .counts_len = counts.len,
        .thresholds = &thresholds,
        .thresholds_len = thresholds.len,
    });
    const tenth = (1 << 32) / 10;
    const all = 0xffff_ffff;
    try std.testing.expectEqual([_]u32{ 3, 3, 3, tenth, 2 * tenth + 1, (9 << 32) / 10, all, all }, thresholds);
}
