//! drive: what comes into neurons in some steps, from synapses and from outside.
//! Computes:  for every step t = clock[0] + step_offset + step and neuron i:
//!              drives[step][i] = inbox[t % slot_count][i] + constants[i] + currents[i][t], cut to
//!                                i16 (currents are 0 from current_step_count on);
//!              inbox[t % slot_count][i] = 0
//! Layout:    inbox: slots of neuron_count; constant i at i * constant_stride; current (i, t) at
//!            i * current_neuron_stride + t; drives: rows of row_stride
//! Exactness: integer, the sum wraps at 32 bits; equals shaders/drive.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const lanes = std.simd.suggestVectorLength(i32) orelse 4;
const Wide = @Vector(lanes, i32);
const Narrow = @Vector(lanes, i16);

fn cut(total: Wide) Narrow {
    const low: Wide = @splat(-0x8000);
    const high: Wide = @splat(0x7fff);
    return @truncate(@min(@max(total, low), high));
}

/// Number `i` on of a row with a stride, a vector of them.
inline fn across(values: [*]const i16, stride: usize, i: usize) Wide {
    if (stride == 0) return @splat(values[0]);
    if (stride == 1) return @as(Narrow, values[i..][0..lanes].*);
    var each: [lanes]i32 = undefined;
    for (&each, i..) |*value, neuron| value.* = values[neuron * stride];
    return each;
}

pub fn drive(call: *const abi.Drive) callconv(.c) void {
    const count: usize = call.neuron_count;
    const current_stride: usize = call.current_neuron_stride;
    for (0..call.step_count) |step| {
        const t: u64 = @as(u64, call.clock[0]) + call.step_offset + step;
        const slot = call.inbox + t % call.slot_count * count;
        const row = call.drives + step * @as(usize, call.row_stride);
        const has_current = t < call.current_step_count;
        const currents = call.currents + if (has_current) t else 0;
        var i: usize = 0;
        while (i + lanes <= count) : (i += lanes) {
            var total: Wide = slot[i..][0..lanes].*;
            total +%= across(call.constants, call.constant_stride, i);
            if (has_current) total +%= across(currents, current_stride, i);
            row[i..][0..lanes].* = cut(total);
            slot[i..][0..lanes].* = @splat(0);
        }
        while (i < count) : (i += 1) {
            var total = slot[i] +% call.constants[i * call.constant_stride];
            if (has_current) total +%= currents[i * current_stride];
            row[i] = @intCast(std.math.clamp(total, -0x8000, 0x7fff));
            slot[i] = 0;
        }
    }
}

test "sums are cut to 16 bits at both ends" {
    const totals: Wide = @splat(0x7fff);
    try std.testing.expectEqual(@as(Narrow, @splat(0x7fff)), cut(totals));
    try std.testing.expectEqual(@as(Narrow, @splat(0x7fff)), cut(totals + @as(Wide, @splat(1))));
    try std.testing.expectEqual(@as(Narrow, @splat(-0x8000)), cut(@splat(std.math.minInt(i32))));
    try std.testing.expectEqual(@as(Narrow, @splat(-3)), cut(@splat(-3)));
}

test "a row is read with any stride" {
    var values: [3 * lanes]i16 = undefined;
    for (&values, 0..) |*value, i| value.* = @intCast(i);
    inline for (.{ 0, 1, 2 }) |stride| {
        const got: [lanes]i32 = across(&values, stride, 1);
        for (got, 1..) |value, i| try std.testing.expectEqual(@as(i32, @intCast(stride * i)), value);
    }
}
