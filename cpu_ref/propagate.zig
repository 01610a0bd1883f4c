//! propagate: spikes into the inboxes of the neurons behind.
//! Computes:  for every source i whose bit of step t = clock[0] + step_offset + step is 1, and every
//!            synapse of it to a target j in target_begin .. target_end:
//!              inbox[(t + delay) % slot_count][j] += weight
//! Layout:    word of source i at word_begin + i * word_stride, its bit first_bit + step; synapses of
//!            source i at rows[i] .. rows[i + 1], or where dense is 1 at i * target_count, all targets
//!            in order; targets of a row do not fall; inbox: slots of target_count
//! Limits:    first_bit + step_count is at most 64
//! Exactness: integer, sums wrap at 32 bits; equals shaders/propagate.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const lanes = std.simd.suggestVectorLength(i32) orelse 4;

/// Spikes that are collected before their rows are walked: by step, so that one slot of the inbox stays
/// near, with the rows ahead on their way.
const batch = 512;
const ahead = 2;
const prefetched_lines = 8;

const Spike = struct { begin: usize, end: usize };

/// The synapses of a source to the targets of this call.
fn rowOf(call: *const abi.Propagate, source: usize) struct { usize, usize } {
    if (call.dense != 0) {
        const row = source * call.target_count;
        return .{ row + call.target_begin, row + call.target_end };
    }
    const begin: usize = call.rows[source];
    const end: usize = call.rows[source + 1];
    if (call.target_begin == 0 and call.target_end == call.target_count) return .{ begin, end };
    const targets = call.targets[begin..end];
    return .{ begin + lowerBound(targets, call.target_begin), begin + lowerBound(targets, call.target_end) };
}

fn lowerBound(targets: []const u32, least: u32) usize {
    return std.sort.lowerBound(u32, targets, least, struct {
        fn compare(wanted: u32, target: u32) std.math.Order {
            return std.math.order(wanted, target);
        }
    }.compare);
}

/// Bring the beginning of a row near; the rest follows it by itself.
inline fn prefetch(call: *const abi.Propagate, spike: Spike) void {
    inline for (0..prefetched_lines) |line| {
        if (line % 2 == 0) @prefetch(call.weights + spike.begin + 32 * (line / 2), .{});
        if (call.dense == 0) @prefetch(call.targets + spike.begin + 16 * line, .{});
    }
}

/// Add the rows of some spikes to a slot of the inbox.
fn deliver(call: *const abi.Propagate, spikes: []const Spike, slot: [*]i32) void {
    for (spikes, 0..) |spike, index| {
        if (index + ahead < spikes.len) prefetch(call, spikes[index + ahead]);
        const weights = call.weights[spike.begin..spike.end];
        if (call.dense != 0) {
            const sums = slot + call.target_begin;
            var j: usize = 0;
            while (j + lanes <= weights.len) : (j += lanes) {
                const more: @Vector(lanes, i16) = weights[j..][0..lanes].*;
                const sum: @Vector(lanes, i32) = sums[j..][0..lanes].*;
                sums[j..][0..lanes].* = sum +% @as(@Vector(lanes, i32), more);
            }
            while (j < weights.len) : (j += 1) sums[j] +%= weights[j];
        } else {
            for (call.targets[spike.begin..spike.end], weights) |target, weight| slot[target] +%= weight;
        }
    }
}

pub fn propagate(call: *const abi.Propagate) callconv(.c) void {
    const words = call.words + call.word_begin;
    const first: u64 = @as(u64, call.clock[0]) + call.step_offset + call.delay;
    const count: usize = call.target_count;
    var fired: [batch]u32 = undefined;
    var source: usize = 0;
    const mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @intCast(64 - call.step_count) << @intCast(call.first_bit);
    while (source < call.source_count) {
        // Sources with spikes, then their spikes step by step.
        var found: usize = 0;
        var any: u64 = 0;
        while (source < call.source_count and found < batch) : (source += 1) {
            const word = words[source * call.word_stride] & mask;
            if (word == 0) continue;
            fired[found] = @intCast(source);
            found += 1;
            any |= word;
        }
        while (any != 0) : (any &= any - 1) {
            const bit = @ctz(any);
            var spikes: [batch]Spike = undefined;
            var waiting: usize = 0;
            for (fired[0..found]) |one| {
                if (words[@as(usize, one) * call.word_stride] >> @intCast(bit) & 1 == 0) continue;
                const begin, const end = rowOf(call, one);
                spikes[waiting] = .{ .begin = begin, .end = end };
                waiting += 1;
            }
            const step = bit - call.first_bit;
            deliver(call, spikes[0..waiting], call.inbox + (first + step) % call.slot_count * count);
        }
    }
}
