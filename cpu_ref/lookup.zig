//! lookup: products with shared weight streams, by the rank of each weight.
//! Computes:  counts[b, n] = base + sum of P(ranks[i, n])                          (unipolar)
//!            counts[b, n] = base - sum of ranks[i, n] + ones[b, i] - 2 P(...)    (bipolar)
//!            over the inputs input_begin .. input_end, P(r) being the ones of stream (b, i) among
//!            its first r positions: entry r / 32 of entries[b, i] holds the ones before it in its
//!            upper half and 32 positions in its lower half
//! Layout:    count (b, n) lies at count_offset + b * count_stride + n; a row of ranks has
//!            rank_stride u32 elements, each two ranks of 16 bits or one of 32
//! Exactness: integer; equals shaders/lookup.wgsl bit for bit

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");

/// Neurons whose counts are held in registers.
const lanes = std.simd.suggestVectorLength(u32) orelse 4;
const Lanes = @Vector(lanes, u32);

/// Look-up in registers: one instruction for a table of two of them, 1024 positions.
const permute = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512f);
extern fn @"llvm.x86.avx512.vpermi2var.d.512"(Lanes, Lanes, Lanes) callconv(.auto) Lanes;

/// One input of one sample: its entries, and both halves of them in `pairs` pairs of registers.
fn Table(comptime pairs: usize) type {
    return struct {
        entries: [*]const u64,
        words: [2 * pairs]Lanes,
        before: [2 * pairs]Lanes,
        total: u32,

        const Self = @This();

        fn load(entries: []const u64) Self {
            const last = entries[entries.len - 1];
            var table: Self = .{
                .entries = entries.ptr,
                .words = undefined,
                .before = undefined,
                .total = @as(u32, @truncate(last >> 32)) + @popCount(@as(u32, @truncate(last))),
            };
            if (pairs == 0) return table;
            var halves: [2][2 * pairs * lanes]u32 = @splat(@splat(0));
            const kept: usize = @min(entries.len, 2 * pairs * lanes);
            for (entries[0..kept], 0..) |entry, k| {
                halves[0][k] = @truncate(entry);
                halves[1][k] = @truncate(entry >> 32);
            }
            inline for (0..2 * pairs) |i| {
                table.words[i] = halves[0][i * lanes ..][0..lanes].*;
                table.before[i] = halves[1][i * lanes ..][0..lanes].*;
            }
            return table;
        }

        /// Ones among the first `rank` positions.
        inline fn one(table: *const Self, rank: u32) u32 {
            const entry = table.entries[rank >> 5];
            const mask = (@as(u32, 1) << @truncate(rank)) -% 1;
            return @as(u32, @truncate(entry >> 32)) + @popCount(@as(u32, @truncate(entry)) & mask);
        }

        /// The same for a rank in every lane: `index` is rank / 32, `mask` the ones below rank % 32.
        inline fn many(table: *const Self, rank: Lanes, index: Lanes, mask: Lanes) Lanes {
            if (pairs > 0) {
                const found = select(&table.before, index) + @popCount(select(&table.words, index) & mask);
                // The entry after the last full one has no place in the registers.
                const whole = rank == @as(Lanes, @splat(1024 * pairs));
                return @select(u32, whole, @as(Lanes, @splat(table.total)), found);
            }
            var word: [lanes]u32 = undefined;
            var before: [lanes]u32 = undefined;
            inline for (0..lanes) |lane| {
                const entry = table.entries[index[lane]];
                word[lane] = @truncate(entry);
                before[lane] = @truncate(entry >> 32);
            }
            return @as(Lanes, before) + @popCount(@as(Lanes, word) & mask);
        }

        inline fn select(halves: *const [2 * pairs]Lanes, index: Lanes) Lanes {
            var found: [pairs]Lanes = undefined;
            inline for (0..pairs) |p| found[p] = @"llvm.x86.avx512.vpermi2var.d.512"(halves[2 * p], index, halves[2 * p + 1]);
            comptime var width = pairs;
            comptime var bit = 2 * lanes;
            inline while (width > 1) : (width /= 2) {
                const upper = (index & @as(Lanes, @splat(bit))) != @as(Lanes, @splat(0));
                inline for (0..width / 2) |p| found[p] = @select(u32, upper, found[2 * p + 1], found[2 * p]);
                bit *= 2;
            }
            return found[0];
        }
    };
}

fn Kernel(comptime Rank: type, comptime bipolar: bool, comptime pairs: usize) type {
    return struct {
        /// Samples that share the decoding of a rank, as far as registers hold their tables.
        const samples = if (pairs > 1) 1 else 4;

        inline fn sum(count: anytype, rank: @TypeOf(count), total: @TypeOf(count), found: @TypeOf(count)) @TypeOf(count) {
            return if (bipolar) count -% rank -% total +% found +% found else count +% found;
        }

        /// Add one input of `tile` samples to the counts.
        fn addInput(comptime tile: usize, tables: *const [tile]Table(pairs), ranks: [*]const Rank, counts: [tile][*]u32, neurons: usize) void {
            var n: usize = 0;
            while (n + lanes <= neurons) : (n += lanes) {
                const rank: Lanes = @as(@Vector(lanes, Rank), ranks[n..][0..lanes].*);
                const bit: @Vector(lanes, u5) = @truncate(rank);
                const mask = (@as(Lanes, @splat(1)) << bit) -% @as(Lanes, @splat(1));
                inline for (0..tile) |s| {
                    const found = tables[s].many(rank, rank >> @splat(5), mask);
                    const out = counts[s][n..][0..lanes];
                    out.* = sum(@as(Lanes, out.*), rank, @as(Lanes, @splat(tables[s].total)), found);
                }
            }
            for (n..neurons) |rest| {
                const rank: u32 = ranks[rest];
                inline for (0..tile) |s| counts[s][rest] = sum(counts[s][rest], rank, tables[s].total, tables[s].one(rank));
            }
        }

        fn addSamples(comptime tile: usize, call: *const abi.Lookup, first: usize) void {
            const entry_count: usize = call.length / 32 + 1;
            const input_count: usize = call.input_count;
            const neurons: usize = call.neuron_count;
            const stride: usize = call.rank_stride;
            const ranks = call.ranks;
            const entries = call.entries;
            var counts: [tile][*]u32 = undefined;
            inline for (0..tile) |s| counts[s] = call.counts + call.count_offset + (first + s) * call.count_stride;
            for (call.input_begin..@max(call.input_begin, call.input_end)) |input| {
                var tables: [tile]Table(pairs) = undefined;
                inline for (0..tile) |s| {
                    const row = ((first + s) * input_count + input) * entry_count;
                    tables[s] = .load(entries[row..][0..entry_count]);
                }
                addInput(tile, &tables, @ptrCast(ranks + input * stride), counts, neurons);
            }
        }

        fn run(call: *const abi.Lookup) void {
            const sample_count: usize = call.sample_count;
            if (call.accumulate == 0) {
                for (0..sample_count) |s| @memset((call.counts + call.count_offset + s * call.count_stride)[0..call.neuron_count], call.initial);
            }
            var sample: usize = 0;
            while (sample + samples <= sample_count) : (sample += samples) addSamples(samples, call, sample);
            while (sample < sample_count) : (sample += 1) addSamples(1, call, sample);
        }
    };
}

fn polar(comptime Rank: type, comptime pairs: usize, call: *const abi.Lookup) void {
    if (call.bipolar != 0) Kernel(Rank, true, pairs).run(call) else Kernel(Rank, false, pairs).run(call);
}

pub fn lookup(call: *const abi.Lookup) callconv(.c) void {
    if (call.rank_bits != 16) return polar(u32, 0, call);
    if (permute) {
        if (call.length <= 1024) return polar(u16, 1, call);
        if (call.length <= 2048) return polar(u16, 2, call);
        if (call.length <= 4096) return polar(u16, 4, call);
    }
    polar(u16, 0, call);
}

test "a look-up in memory and one in registers find the same" {
    inline for (.{ 0, 1, 2, 4 }) |pairs| {
        if (pairs == 0 or permute) {
            const length = if (pairs == 0) 500 else 1024 * pairs;
            var random: std.Random.DefaultPrng = .init(pairs);
            var entries: [length / 32 + 1]u64 = undefined;
            var ones: [length + 1]u32 = undefined;
            ones[0] = 0;
            for (&entries, 0..) |*entry, k| {
                const left = length - 32 * k;
                const word: u32 = if (left >= 32) random.random().int(u32) else random.random().int(u32) & ((@as(u32, 1) << @intCast(left)) - 1);
                entry.* = word | @as(u64, ones[32 * k]) << 32;
                for (0..@min(left, 32)) |t| ones[32 * k + t + 1] = ones[32 * k + t] + (word >> @intCast(t) & 1);
            }
            const table: Table(pairs) = .load(&entries);
            try std.testing.expectEqual(ones[length], table.total);
            var rank: usize = 0;
            while (rank <= length) : (rank += lanes) {
                const some = @min(@as(Lanes, @splat(@intCast(rank))) + std.simd.iota(u32, lanes), @as(Lanes, @splat(length)));
                const mask = (@as(Lanes, @splat(1)) << @truncate(some)) -% @as(Lanes, @splat(1));
                const found: [lanes]u32 = table.many(some, some >> @splat(5), mask);
                for (found, @as([lanes]u32, some)) |got, r| {
                    try std.testing.expectEqual(ones[r], got);
                    try std.testing.expectEqual(ones[r], table.one(r));
                }
            }
        }
    }
}
