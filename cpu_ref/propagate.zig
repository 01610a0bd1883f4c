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

/// Sources that fired are collected, and their spikes delivered step by step, so that one slot of the inbox
/// stays near.
const batch = 512;

const Spike = struct { begin: usize, end: usize };

/// The synapses of a source to the targets of this call.
fn rowOf(call: *const abi.Propagate, source: usize) struct { usize, usize } {
    if (call.dense != 0) {
        const row = source * call.target_count;
        return .{ row + call.target_begin, row + call.target_end };
    }
    const begin: usize = call.rows[source];
    const end: usize = call.rows[source + 1];
    const targets = call.targets[begin..end];
    return .{ begin + firstFrom(call, targets, call.target_begin), begin + firstFrom(call, targets, call.target_end) };
}

/// How many targets of a row lie before one. Most rows are spread evenly, and all of them are far from any
/// cache: a walk from the likely place meets fewer lines than halving.
fn firstFrom(call: *const abi.Propagate, targets: []const u32, least: u32) usize {
    if (least == 0) return 0;
    if (least == call.target_count) return targets.len;
    var place: usize = @intCast(@as(u64, targets.len) * least / call.target_count);
    while (place > 0 and targets[place - 1] >= least) place -= 1;
    while (place < targets.len and targets[place] < least) place += 1;
    return place;
}

/// Synapses whose weights fill a cache line, and whose targets fill two.
const line_synapses = 32;

/// Add the rows of some spikes to a slot of the inbox, each with the next one on its way: rows lie anywhere
/// in memory, and are too short for the processor to find out by itself how they go on.
fn deliver(comptime dense: bool, call: *const abi.Propagate, spikes: []const Spike, slot: [*]i32) void {
    for (spikes, 0..) |spike, index| {
        const next = spikes[@min(index + 1, spikes.len - 1)];
        const weights = call.weights[spike.begin..spike.end];
        const targets = if (dense) slot + call.target_begin else call.targets[spike.begin..spike.end];
        var i: usize = 0;
        while (i + line_synapses <= weights.len) : (i += line_synapses) {
            if (next.begin + i < next.end) {
                @prefetch(call.weights + next.begin + i, .{});
                if (!dense) {
                    @prefetch(call.targets + next.begin + i, .{});
                    @prefetch(call.targets + next.begin + i + line_synapses / 2, .{});
                }
            }
            const line = weights[i..][0..line_synapses];
            if (dense) {
                const sums: @Vector(line_synapses, i32) = targets[i..][0..line_synapses].*;
                targets[i..][0..line_synapses].* = sums +% @as(@Vector(line_synapses, i32), @as(@Vector(line_synapses, i16), line.*));
            } else {
                inline for (line, targets[i..][0..line_synapses]) |weight, target| slot[target] +%= weight;
            }
        }
        while (i < weights.len) : (i += 1) {
            if (dense) targets[i] +%= weights[i] else slot[targets[i]] +%= weights[i];
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
            const slot = call.inbox + (first + step) % call.slot_count * count;
            if (call.dense != 0) deliver(true, call, spikes[0..waiting], slot) else deliver(false, call, spikes[0..waiting], slot);
        }
    }
}

test "the first target from one on, wherever the row has it" {
    const targets = [_]u32{ 0, 0, 3, 4, 4, 4, 9, 60, 61 };
    var call: abi.Propagate = undefined;
    call.target_count = 64;
    for (0..65) |least| {
        for (0..targets.len + 1) |length| {
            const row = targets[0..length];
            var expected: usize = 0;
            while (expected < length and row[expected] < least) expected += 1;
            try std.testing.expectEqual(expected, firstFrom(&call, row, @intCast(least)));
        }
    }
}
