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

/// Spikes that are collected before their rows are walked, so that the rows ahead are on their way.
const batch = 64;
const ahead = 2;

const Spike = struct { begin: usize, end: usize, slot: [*]i32 };

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

fn deliver(call: *const abi.Propagate, spikes: []const Spike) void {
    for (spikes, 0..) |spike, index| {
        if (index + ahead < spikes.len) {
            const next = spikes[index + ahead];
            @prefetch(call.weights + next.begin, .{});
            if (call.dense == 0) @prefetch(call.targets + next.begin, .{});
        }
        const weights = call.weights[spike.begin..spike.end];
        if (call.dense != 0) {
            const slot = spike.slot + call.target_begin;
            var j: usize = 0;
            while (j + lanes <= weights.len) : (j += lanes) {
                const more: @Vector(lanes, i16) = weights[j..][0..lanes].*;
                const sum: @Vector(lanes, i32) = slot[j..][0..lanes].*;
                slot[j..][0..lanes].* = sum +% @as(@Vector(lanes, i32), more);
            }
            while (j < weights.len) : (j += 1) slot[j] +%= weights[j];
        } else {
            for (call.targets[spike.begin..spike.end], weights) |target, weight| spike.slot[target] +%= weight;
        }
    }
}

pub fn propagate(call: *const abi.Propagate) callconv(.c) void {
    const count: usize = call.target_count;
    const words = call.words + call.word_begin;
    const first: u64 = @as(u64, call.clock[0]) + call.step_offset + call.delay;
    const mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @intCast(64 - call.step_count) << @intCast(call.first_bit);
    var spikes: [batch]Spike = undefined;
    var waiting: usize = 0;
    for (0..call.source_count) |source| {
        var word = words[source * call.word_stride] & mask;
        if (word == 0) continue;
        const begin, const end = rowOf(call, source);
        while (word != 0) : (word &= word - 1) {
            const step = @ctz(word) - call.first_bit;
            spikes[waiting] = .{ .begin = begin, .end = end, .slot = call.inbox + (first + step) % call.slot_count * count };
            waiting += 1;
            if (waiting == batch) {
                deliver(call, &spikes);
                waiting = 0;
            }
        }
    }
    deliver(call, spikes[0..waiting]);
}
