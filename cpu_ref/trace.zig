//! trace: decaying traces of spikes, for synapses that learn.
//! Computes:  for every neuron and step, M(x) being the low data_width bits of x with their sign:
//!              x = M(x * decay >> fraction), and at a spike x = M(x + amplitude)
//! Layout:    the spike of step k is bit first_bit + k of words[word_begin + i * word_stride], the
//!            trace after it traces[k * trace_stride + i]; amplitude and decay are two's complement
//! Limits:    first_bit + step_count is at most 64; x has 16 bits, so that no product passes 32
//! Exactness: integer; equals shaders/trace.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const lanes = std.simd.suggestVectorLength(i32) orelse 4;

/// Advance `width` neighbouring neurons by every step.
inline fn advance(comptime width: usize, call: *const abi.Trace, first: usize) void {
    const Numbers = @Vector(width, i32);
    const stride: usize = call.word_stride;
    const words = call.words + call.word_begin + first * stride;
    var each: [width]u64 = undefined;
    if (stride == 1) {
        each = words[0..width].*;
    } else {
        for (&each, 0..) |*word, i| word.* = words[i * stride];
    }
    const unused: @Vector(width, u5) = @splat(@intCast(32 - call.data_width));
    const shift: @Vector(width, u5) = @splat(@intCast(call.fraction));
    const amplitude: Numbers = @splat(@bitCast(call.amplitude));
    const decay: Numbers = @splat(@bitCast(call.decay));
    const step_count = call.step_count;
    const trace_stride: usize = call.trace_stride;
    const traces = call.traces + first;

    var spikes = @as(@Vector(width, u64), each) >> @splat(@as(u6, @truncate(call.first_bit)));
    var x: Numbers = call.state[first..][0..width].*;
    for (0..step_count) |k| {
        const fired = @as(@Vector(width, u1), @truncate(spikes)) != @as(@Vector(width, u1), @splat(0));
        spikes >>= @splat(1);
        x = (((x *% decay) >> shift) << unused) >> unused;
        x = @select(i32, fired, ((x +% amplitude) << unused) >> unused, x);
        traces[k * trace_stride ..][0..width].* = x;
    }
    call.state[first..][0..width].* = x;
}

pub fn trace(call: *const abi.Trace) callconv(.c) void {
    const neuron_count: usize = call.neuron_count;
    var first: usize = 0;
    while (first + lanes <= neuron_count) : (first += lanes) advance(lanes, call, first);
    while (first < neuron_count) : (first += 1) advance(1, call, first);
}
