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

/// Look-up in registers: a table of 32 entries is one instruction.
const permute = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512f);
extern fn @"llvm.x86.avx512.vpermi2var.d.512"(Lanes, Lanes, Lanes) callconv(.auto) Lanes;
const longest_permuted = 1024;

/// Samples that share the decoding of a rank.
const samples = 4;

/// One input of one sample: its entries, and for short streams both halves in registers.
const Table = struct {
    entries: [*]const u64,
    words: [2]Lanes,
    before: [2]Lanes,
    total: u32,

    fn load(entries: []const u64, comptime in_registers: bool) Table {
        const last = entries[entries.len - 1];
        var table: Table = .{
            .entries = entries.ptr,
            .words = undefined,
            .before = undefined,
            .total = @as(u32, @truncate(last >> 32)) + @popCount(@as(u32, @truncate(last))),
        };
        if (in_registers) {
            var halves: [2][2 * lanes]u32 = @splat(@splat(0));
            const kept: usize = @min(entries.len, 2 * lanes);
            for (entries[0..kept], 0..) |entry, k| {
                halves[0][k] = @truncate(entry);
                halves[1][k] = @truncate(entry >> 32);
            }
            inline for (0..2) |h| {
                table.words[h] = halves[0][h * lanes ..][0..lanes].*;
                table.before[h] = halves[1][h * lanes ..][0..lanes].*;
            }
        }
        return table;
    }

    /// Ones among the first `rank` positions.
    inline fn ones(table: *const Table, rank: u32) u32 {
        const entry = table.entries[rank >> 5];
        const mask = (@as(u32, 1) << @truncate(rank)) -% 1;
        return @as(u32, @truncate(entry >> 32)) + @popCount(@as(u32, @truncate(entry)) & mask);
    }
};

fn Kernel(comptime Rank: type, comptime bipolar: bool, comptime in_registers: bool) type {
    return struct {
        inline fn onesVector(table: *const Table, rank: Lanes, index: Lanes, mask: Lanes) Lanes {
            if (in_registers) {
                const word = @"llvm.x86.avx512.vpermi2var.d.512"(table.words[0], index, table.words[1]);
                const before = @"llvm.x86.avx512.vpermi2var.d.512"(table.before[0], index, table.before[1]);
                const found = before + @popCount(word & mask);
                // Entry 32 of a stream of 1024 bits has no place in the registers.
                const whole = rank == @as(Lanes, @splat(longest_permuted));
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

        /// Add one input of `count` samples to the counts.
        fn addInput(comptime count: usize, tables: *const [count]Table, ranks: [*]const Rank, counts: [count][*]u32, neurons: usize) void {
            var n: usize = 0;
            while (n + lanes <= neurons) : (n += lanes) {
                const rank: Lanes = @as(@Vector(lanes, Rank), ranks[n..][0..lanes].*);
                const index = rank >> @splat(5);
                const bit: @Vector(lanes, u5) = @truncate(rank);
                const mask = (@as(Lanes, @splat(1)) << bit) -% @as(Lanes, @splat(1));
                inline for (0..count) |s| {
                    const found = onesVector(&tables[s], rank, index, mask);
                    const out: Lanes = counts[s][n..][0..lanes].*;
                    counts[s][n..][0..lanes].* = if (bipolar)
                        out -% rank -% @as(Lanes, @splat(tables[s].total)) +% found +% found
                    else
                        out +% found;
                }
            }
            for (n..neurons) |rest| {
                inline for (0..count) |s| {
                    const found = tables[s].ones(ranks[rest]);
                    counts[s][rest] = if (bipolar)
                        counts[s][rest] -% ranks[rest] -% tables[s].total +% found +% found
                    else
                        counts[s][rest] +% found;
                }
            }
        }

        fn addSamples(comptime count: usize, call: *const abi.Lookup, first: usize) void {
            const entry_count: usize = call.length / 32 + 1;
            const input_count: usize = call.input_count;
            const neurons: usize = call.neuron_count;
            const stride: usize = call.rank_stride;
            const all_ranks = call.ranks;
            const all_entries = call.entries;
            var counts: [count][*]u32 = undefined;
            inline for (0..count) |s| counts[s] = call.counts + call.count_offset + (first + s) * call.count_stride;
            for (call.input_begin..@max(call.input_begin, call.input_end)) |input| {
                var tables: [count]Table = undefined;
                inline for (0..count) |s| {
                    const row = ((first + s) * input_count + input) * entry_count;
                    tables[s] = .load(all_entries[row..][0..entry_count], in_registers);
                }
                addInput(count, &tables, @ptrCast(all_ranks + input * stride), counts, neurons);
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

pub fn lookup(call: *const abi.Lookup) callconv(.c) void {
    const bipolar = call.bipolar != 0;
    if (call.rank_bits != 16) {
        if (bipolar) Kernel(u32, true, false).run(call) else Kernel(u32, false, false).run(call);
    } else if (permute and call.length <= longest_permuted) {
        if (bipolar) Kernel(u16, true, permute).run(call) else Kernel(u16, false, permute).run(call);
    } else {
        if (bipolar) Kernel(u16, true, false).run(call) else Kernel(u16, false, false).run(call);
    }
}
