//! stdp: synapses that learn by pairs of spikes, and deliver what they have learnt.
//! Computes:  for every synapse and step, M(x) being the low data_width bits of x with their sign,
//!            a and b the traces of its source and its target after the step:
//!              the target fired:    w = M(min(w + (a * a_plus >> fraction), w_max))
//!              else, source fired:  w = M(max(w - (b * a_minus >> fraction), w_min))
//!              the source fired:    inbox[(t + delay) % slot_count, target] += w
//!            for the steps t = clock + step_offset + k, k from 0 to step_count - 1
//! Layout:    the spike of step k is bit first_bit + k of a neuron's word; traces have a row for each
//!            step, the inbox one for each slot; synapse s joins sources[s] and targets[s], or where
//!            dense is 1 source s / target_count and target s % target_count
//! Limits:    first_bit + step_count is at most 64, delay at most slot_count; traces have 16 bits, so
//!            that no product passes 32
//! Exactness: integer, sums wrap; equals shaders/stdp.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const lanes = std.simd.suggestVectorLength(i16) orelse 8;

/// Targets that fired, one bit each: word target / 64 % filter_words, bit target % 64. More targets
/// than bits share them, so that a bit says "perhaps". It has to lie in the first-level cache.
const filter_words = 4096;

const Learning = struct {
    call: *const abi.Stdp,
    unused: u5,
    fraction: u5,
    w_min: i32,
    w_max: i32,
    /// Steps of the interval, from bit 0.
    steps: u64,
    /// Steps in which some target fired.
    post_steps: u64,
    /// Where the inbox row of each step begins.
    slots: [64]usize,
    filter: [filter_words]u64,

    fn init(learning: *Learning, call: *const abi.Stdp) void {
        learning.call = call;
        learning.unused = @intCast(32 - call.data_width);
        learning.fraction = @intCast(call.fraction);
        learning.w_min = @bitCast(call.w_min);
        learning.w_max = @bitCast(call.w_max);
        learning.steps = if (call.step_count == 0) 0 else ~@as(u64, 0) >> @intCast(64 - call.step_count);
        const slot_count: u64 = call.slot_count;
        for (learning.slots[0..call.step_count], 0..) |*slot, k| {
            const arrival = @as(u64, call.clock[0]) + call.step_offset + k + call.delay;
            slot.* = arrival % slot_count * call.target_count;
        }
        learning.look();
    }

    /// Which targets fired, unless there are too few synapses for that to pay.
    fn look(learning: *Learning) void {
        const call = learning.call;
        const target_count: usize = call.target_count;
        const used: usize = @min((target_count + 63) / 64, filter_words);
        if (call.synapse_count < target_count / 16) {
            @memset(learning.filter[0..used], ~@as(u64, 0));
            learning.post_steps = learning.steps;
            return;
        }
        @memset(learning.filter[0..used], 0);
        const words = call.target_words + call.target_word_begin;
        const interval = learning.steps << @truncate(call.first_bit);
        var seen: u64 = 0;
        var first: usize = 0;
        while (first < target_count) : (first += 64) {
            var found: u64 = 0;
            if (first + 64 <= target_count) {
                const fired = @as(@Vector(64, u64), words[first..][0..64].*) & @as(@Vector(64, u64), @splat(interval));
                found = @bitCast(fired != @as(@Vector(64, u64), @splat(0)));
                if (found != 0) seen |= @reduce(.Or, fired);
            } else {
                for (words[first..target_count], 0..) |word, i| {
                    seen |= word & interval;
                    found |= @as(u64, @intFromBool(word & interval != 0)) << @intCast(i);
                }
            }
            learning.filter[first / 64 % filter_words] |= found;
        }
        learning.post_steps = seen >> @truncate(call.first_bit);
    }

    inline fn perhaps(learning: *const Learning, target: u32) u64 {
        return learning.filter[target / 64 % filter_words] >> @truncate(target) & 1;
    }

    inline fn masked(learning: *const Learning, value: i32) i32 {
        return (value << learning.unused) >> learning.unused;
    }

    /// The synapses `begin` .. `end` of one source; dense ones lead to the targets from 0 on.
    /// Most sources neither fire nor have a trace left: of their synapses the weights alone are looked at.
    fn row(learning: *const Learning, source: usize, begin: usize, end: usize, comptime dense: bool) void {
        const call = learning.call;
        const word = call.source_words[call.source_word_begin + source * call.source_word_stride];
        const pre = word >> @truncate(call.first_bit) & learning.steps;
        var gains: [64]i32 = undefined;
        var any_gain: i32 = 0;
        var rest = learning.post_steps;
        while (rest != 0) : (rest &= rest - 1) {
            const k: usize = @ctz(rest);
            const a = call.source_traces[k * call.source_count + source];
            gains[k] = (a *% @as(i32, @bitCast(call.a_plus))) >> learning.fraction;
            any_gain |= gains[k];
        }
        if (pre == 0 and any_gain == 0 and learning.inBounds(call.weights[begin..end])) return;

        var s = begin;
        while (s < end) : (s += 64) {
            const count: usize = @min(64, end - s);
            var candidates = ~@as(u64, 0) >> @intCast(64 - count);
            if (pre == 0) {
                if (dense) {
                    candidates &= learning.filter[(s - begin) / 64 % filter_words];
                } else {
                    candidates = 0;
                    for (call.targets[s..][0..count], 0..) |target, i| candidates |= learning.perhaps(target) << @intCast(i);
                }
            }
            while (candidates != 0) : (candidates &= candidates - 1) {
                const synapse = s + @ctz(candidates);
                const target = if (dense) synapse - begin else call.targets[synapse];
                learning.learn(synapse, target, pre, &gains);
            }
        }
    }

    /// True where a gain of 0 changes no weight: it is still cut to the maximum and to its bits.
    fn inBounds(learning: *const Learning, weights: []const i16) bool {
        const lowest = learning.masked(@as(i32, 1) << (31 - learning.unused));
        const highest = @min(learning.w_max, -1 - lowest);
        if (lowest == std.math.minInt(i16) and highest == std.math.maxInt(i16)) return true;
        const least: i16 = @intCast(lowest);
        const most: i16 = @intCast(highest);
        var s: usize = 0;
        while (s + lanes <= weights.len) : (s += lanes) {
            const some: @Vector(lanes, i16) = weights[s..][0..lanes].*;
            const outside = (some < @as(@Vector(lanes, i16), @splat(least))) | (some > @as(@Vector(lanes, i16), @splat(most)));
            if (@reduce(.Or, outside)) return false;
        }
        for (weights[s..]) |weight| if (weight < least or weight > most) return false;
        return true;
    }

    inline fn learn(learning: *const Learning, synapse: usize, target: usize, pre: u64, gains: *const [64]i32) void {
        const call = learning.call;
        const post = call.target_words[call.target_word_begin + target] >> @truncate(call.first_bit) & learning.steps;
        var weight: i32 = call.weights[synapse];
        var events = pre | post;
        while (events != 0) : (events &= events - 1) {
            const k: u6 = @intCast(@ctz(events));
            if (post >> k & 1 != 0) {
                weight = learning.masked(@min(weight +% gains[k], learning.w_max));
            } else {
                const b = call.target_traces[@as(usize, k) * call.target_count + target];
                const loss = (b *% @as(i32, @bitCast(call.a_minus))) >> learning.fraction;
                weight = learning.masked(@max(weight -% loss, learning.w_min));
            }
            // Other threads have synapses of the same targets.
            if (pre >> k & 1 != 0) _ = @atomicRmw(i32, &call.inbox[learning.slots[k] + target], .Add, weight, .monotonic);
        }
        call.weights[synapse] = @truncate(weight);
    }
};

/// Where the synapses of the source of synapse `begin` end.
fn rowEnd(sources: []const u32, begin: usize) usize {
    const source = sources[begin];
    var low = begin;
    var stride: usize = 1;
    while (low + stride < sources.len and sources[low + stride] == source) : (stride *= 2) low += stride;
    // sources[low] is the source's own, that at low + stride is not, or lies past the last one.
    while (stride > 1) {
        stride /= 2;
        if (low + stride < sources.len and sources[low + stride] == source) low += stride;
    }
    return low + 1;
}

pub fn stdp(call: *const abi.Stdp) callconv(.c) void {
    const synapse_count: usize = call.synapse_count;
    if (synapse_count == 0 or call.step_count == 0) return;
    var learning: Learning = undefined;
    learning.init(call);
    var begin: usize = 0;
    if (call.dense != 0) {
        const target_count: usize = call.target_count;
        while (begin < synapse_count) : (begin += target_count) {
            learning.row(begin / target_count, begin, @min(begin + target_count, synapse_count), true);
        }
    } else {
        const sources = call.sources[0..synapse_count];
        while (begin < synapse_count) {
            const end = rowEnd(sources, begin);
            learning.row(sources[begin], begin, end, false);
            begin = end;
        }
    }
}

test "where the synapses of a source end" {
    var sources: [300]u32 = undefined;
    for ([_]usize{ 1, 2, 3, 7, 64, 100, 299, 300 }) |run| {
        for (&sources, 0..) |*source, i| source.* = @intCast(i / run);
        for (0..sources.len) |begin| {
            try std.testing.expectEqual(@min((begin / run + 1) * run, sources.len), rowEnd(&sources, begin));
        }
    }
}
