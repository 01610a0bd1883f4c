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
            initialise(call);
            var sample: usize = 0;
            while (sample + samples <= sample_count) : (sample += samples) addSamples(samples, call, sample);
            while (sample < sample_count) : (sample += 1) addSamples(1, call, sample);
        }
    };
}

/// Look-up in memory, where there is none in registers. What each rank of an input adds to a count is written down
/// first, so that an addition is all that is left for each neuron.
const Tabulated = struct {
    /// Numbers in the tables of some inputs: half of the first-level cache.
    const room = 8 * 1056;
    /// The longest streams of which one input has room.
    const longest = 8192;

    /// Whether there are neurons enough to pay for the tables.
    fn pays(call: *const abi.Lookup) bool {
        return call.length <= longest and 8 * @as(u64, call.neuron_count) >= call.length;
    }

    /// The numbers of all ranks, 32 for each entry; they are signed, and lie within the length.
    fn tabulate(comptime bipolar: bool, entries: []const u64, numbers: []u16) void {
        const Octets = @Vector(32, u8);
        const Numbers = @Vector(32, u16);
        const octet_of: @Vector(32, i32) = comptime std.simd.iota(i32, 32) / @as(@Vector(32, i32), @splat(8));
        const before_in_octet = comptime masks: {
            var masks: [32]u8 = undefined;
            for (&masks, 0..) |*mask, k| mask.* = (1 << k % 8) - 1;
            break :masks @as(Octets, masks);
        };
        const last = entries[entries.len - 1];
        const total: Numbers = @splat(@as(u16, @truncate(last >> 32)) +% @popCount(@as(u32, @truncate(last))));
        for (entries, 0..) |entry, k| {
            const word: u32 = @truncate(entry);
            const octets: @Vector(4, u8) = @bitCast(word);
            // Ones of each octet, by Warren: Hacker's Delight, section 5-1; the product adds up those before each.
            const twos = word - (word >> 1 & 0x5555_5555);
            const fours = (twos & 0x3333_3333) + (twos >> 2 & 0x3333_3333);
            const before_octet: @Vector(4, u8) = @bitCast((fours + (fours >> 4) & 0x0f0f_0f0f) *% 0x0101_0100);
            const in_octet: Octets = @popCount(@shuffle(u8, octets, undefined, octet_of) & before_in_octet);
            const in_entry = in_octet + @shuffle(u8, before_octet, undefined, octet_of);
            const ones = @as(Numbers, in_entry) +% @as(Numbers, @splat(@truncate(entry >> 32)));
            const rank = std.simd.iota(u16, 32) +% @as(Numbers, @splat(@truncate(32 * k)));
            numbers[32 * k ..][0..32].* = if (bipolar) ones +% ones -% rank -% total else ones;
        }
    }

    /// Add inputs whose tables lie side by side to the counts of a sample.
    fn add(comptime inputs: usize, tables: *const [room]u16, ranks: [*]const u16, stride: usize, counts: []u32) void {
        var rows: [inputs][*]const u16 = undefined;
        inline for (&rows, 0..) |*row, i| row.* = ranks + i * stride;
        for (counts, 0..) |*count, n| {
            var sum: i32 = 0;
            inline for (rows, 0..) |row, i| sum += @as(i16, @bitCast(tables[i * (room / inputs) + row[n]]));
            count.* +%= @bitCast(sum);
        }
    }

    fn addInputs(comptime inputs: usize, comptime bipolar: bool, call: *const abi.Lookup, tables: *[room]u16, first: usize) void {
        const entry_count: usize = call.length / 32 + 1;
        const stride: usize = 2 * @as(usize, call.rank_stride);
        const ranks: [*]const u16 = @ptrCast(call.ranks);
        for (0..call.sample_count) |sample| {
            inline for (0..inputs) |i| {
                const row = (sample * call.input_count + first + i) * entry_count;
                tabulate(bipolar, call.entries[row..][0..entry_count], tables[i * (room / inputs) ..][0 .. room / inputs]);
            }
            const counts = call.counts + call.count_offset + sample * call.count_stride;
            add(inputs, tables, ranks + first * stride, stride, counts[0..call.neuron_count]);
        }
    }

    fn run(comptime inputs: usize, comptime bipolar: bool, call: *const abi.Lookup) void {
        initialise(call);
        var tables: [room]u16 align(64) = undefined;
        var input: usize = call.input_begin;
        while (input + inputs <= call.input_end) : (input += inputs) addInputs(inputs, bipolar, call, &tables, input);
        while (input < call.input_end) : (input += 1) addInputs(1, bipolar, call, &tables, input);
    }

    fn polar(comptime inputs: usize, call: *const abi.Lookup) void {
        if (call.bipolar != 0) run(inputs, true, call) else run(inputs, false, call);
    }
};

fn initialise(call: *const abi.Lookup) void {
    if (call.accumulate != 0) return;
    for (0..call.sample_count) |s| @memset((call.counts + call.count_offset + s * call.count_stride)[0..call.neuron_count], call.initial);
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
    } else if (Tabulated.pays(call)) {
        if (call.length <= 1024) return Tabulated.polar(8, call);
        if (call.length <= 2048) return Tabulated.polar(4, call);
        if (call.length <= 4096) return Tabulated.polar(2, call);
        return Tabulated.polar(1, call);
    }
    polar(u16, 0, call);
}

test "look-ups in memory, in registers and in tables find the same" {
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
            inline for (.{ false, true }) |bipolar| {
                var numbers: [32 * entries.len]u16 = undefined;
                Tabulated.tabulate(bipolar, &entries, &numbers);
                for (ones, numbers[0..ones.len], 0..) |count, number, r| {
                    const wide: i32 = @intCast(count);
                    const expected = if (bipolar) 2 * wide - @as(i32, @intCast(r)) - @as(i32, @intCast(ones[length])) else wide;
                    try std.testing.expectEqual(expected, @as(i16, @bitCast(number)));
                }
            }
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
