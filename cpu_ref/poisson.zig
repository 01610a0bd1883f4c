//! poisson: Poisson-distributed numbers of weights for every neuron, added to what arrives at a step.
//! Computes:  inbox[t % slot_count, i] += weight * n in i32, wrapping, for the steps
//!            t = clock[0] + step_offset + k, k in 0 .. step_count; n is the number of entries e with
//!            u >= thresholds[e], u being component i % 4 of philox((t, i / 4, 0, domain), key)
//! Layout:    inbox[slot, i]; the neurons are those of the blocks block_begin .. block_end, four to a block
//! Stages:    a draw meets the thresholds among which all but 1/2048 of the draws lie; neurons that
//!            share their vectors with one of the others meet all thresholds
//! Exactness: integer; equals shaders/poisson.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const philox = @import("philox.zig");

const lanes = philox.lanes;
const Lanes = philox.Lanes;
const rounds = 10;

/// Independent blocks in flight: they hide each other's latency.
const chains = 4;
const group_blocks = chains * lanes;
const group_neurons = 4 * group_blocks;

/// Draws as signed numbers of the same order: few instruction sets compare unsigned ones.
const Draws = @Vector(2 * lanes, i32);
const flip = 0x8000_0000;

inline fn signed(number: u32) i32 {
    return @bitCast(number ^ flip);
}

/// Thresholds that a draw is compared with.
const Table = struct {
    /// Below this many of a draw's 2^32 values, on either side, thresholds are left to the second stage.
    const rare = 1 << 20;

    entries: []const u32,
    /// The first stage has the entries first .. last; it counts draws from `least` to `greatest` right.
    first: usize,
    last: usize,
    least: i32,
    greatest: i32,

    fn of(entries: []const u32) Table {
        var first: usize = 0;
        while (first < entries.len and entries[first] <= rare) first += 1;
        var last = entries.len;
        while (last > first and entries[last - 1] >= (1 << 32) - rare) last -= 1;
        return .{
            .entries = entries,
            .first = first,
            .last = last,
            .least = signed(if (first == 0) 0 else entries[first - 1]),
            .greatest = signed(if (last == entries.len) 0xffff_ffff else entries[last] - 1),
        };
    }

    /// How many entries each draw reaches.
    inline fn count(table: *const Table, comptime vectors: usize, draws: [vectors]Draws) [vectors]Draws {
        var outside: @Vector(2 * lanes, bool) = @splat(false);
        inline for (draws) |draw| {
            outside |= draw < @as(Draws, @splat(table.least));
            outside |= draw > @as(Draws, @splat(table.greatest));
        }
        if (@reduce(.Or, outside)) return reached(vectors, draws, table.entries, 0);
        return reached(vectors, draws, table.entries[table.first..table.last], table.first);
    }

    inline fn reached(comptime vectors: usize, draws: [vectors]Draws, entries: []const u32, before: usize) [vectors]Draws {
        var numbers: [vectors]Draws = @splat(@splat(@intCast(before + entries.len)));
        for (entries) |entry| {
            const threshold: Draws = @splat(signed(entry));
            inline for (&numbers, draws) |*number, draw| {
                number.* += @select(i32, draw < threshold, @as(Draws, @splat(-1)), @as(Draws, @splat(0)));
            }
        }
        return numbers;
    }
};

/// Add the numbers of a step to a group of neurons, from a block on.
inline fn add(call: *const abi.Poisson, table: *const Table, keys: *const [rounds][2]u64, t: u32, block: usize, neurons: *[group_neurons]i32) void {
    var states: [chains][4]Lanes = undefined;
    inline for (&states, 0..) |*state, i| {
        const blocks = std.simd.iota(u64, lanes) + @as(Lanes, @splat(block + i * lanes));
        state.* = .{ @splat(t), blocks, @splat(0), @splat(call.domain) };
    }
    inline for (keys) |key| philox.round(chains, &states, .{ @splat(key[0]), @splat(key[1]) });
    var draws: [2 * chains]Draws = undefined;
    inline for (states, 0..) |state, i| {
        inline for (0..2) |pair| {
            const joined: @Vector(2 * lanes, u32) = @bitCast(philox.joined(state[2 * pair], state[2 * pair + 1]));
            draws[2 * i + pair] = @bitCast(joined ^ @as(@Vector(2 * lanes, u32), @splat(flip)));
        }
    }
    const numbers = table.count(2 * chains, draws);
    const weight: @Vector(4 * lanes, i32) = @splat(@bitCast(call.weight));
    inline for (0..chains) |i| {
        const pairs: [2]Lanes = .{ @bitCast(numbers[2 * i]), @bitCast(numbers[2 * i + 1]) };
        const in_order: @Vector(4 * lanes, i32) = @bitCast(std.simd.interlace(pairs));
        const some = neurons[i * 4 * lanes ..][0 .. 4 * lanes];
        some.* = @as(@Vector(4 * lanes, i32), some.*) +% in_order *% weight;
    }
}

pub fn poisson(call: *const abi.Poisson) callconv(.c) void {
    const neuron_count: usize = call.neuron_count;
    const keys = philox.schedule(rounds, call.key_lo, call.key_hi);
    const table: Table = .of(call.thresholds[0..call.entry_count]);
    const end: usize = @min(4 * @as(usize, call.block_end), neuron_count);
    for (0..call.step_count) |k| {
        const t = call.clock[0] +% call.step_offset +% @as(u32, @truncate(k));
        const slot = call.inbox[(t % call.slot_count) * neuron_count ..][0..neuron_count];
        var neuron: usize = 4 * @as(usize, call.block_begin);
        while (neuron + group_neurons <= end) : (neuron += group_neurons) {
            add(call, &table, &keys, t, neuron / 4, slot[neuron..][0..group_neurons]);
        }
        if (neuron >= end) continue;
        var rest: [group_neurons]i32 = @splat(0);
        @memcpy(rest[0 .. end - neuron], slot[neuron..end]);
        add(call, &table, &keys, t, neuron / 4, &rest);
        @memcpy(slot[neuron..end], rest[0 .. end - neuron]);
    }
}

test "a draw reaches as many entries as lie at or below it" {
    const entries = [_]u32{ 5, 1 << 20, (1 << 20) + 1, 1 << 31, 1 << 31, 0xffe0_0000, 0xffff_fff0 };
    const table: Table = .of(&entries);
    for ([_]u32{ 0, 4, 5, 6, 1 << 20, (1 << 20) + 1, 1 << 30, (1 << 31) - 1, 1 << 31, 0xffe0_0000, 0xffff_ffef, 0xffff_fff0, 0xffff_ffff }) |draw| {
        const draws: [2]Draws = .{ @splat(signed(draw)), @splat(signed(1 << 30)) };
        var expected: i32 = 0;
        for (entries) |entry| expected += @intFromBool(draw >= entry);
        try std.testing.expectEqual([2]Draws{ @splat(expected), @splat(3) }, table.count(2, draws));
    }
}
