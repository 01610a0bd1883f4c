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
const octets = @import("octets.zig");

/// An entry, as its bytes lie in memory.
const Entry = extern struct {
    word: u32,
    before: u32,

    comptime {
        std.debug.assert(builtin.cpu.arch.endian() == .little);
    }

    fn row(call: *const abi.Lookup, sample: usize, input: usize) []const Entry {
        const entry_count: usize = call.length / 32 + 1;
        const entries: [*]const Entry = @ptrCast(call.entries);
        return entries[(sample * call.input_count + input) * entry_count ..][0..entry_count];
    }

    /// Ones of the stream whose last entry this is.
    fn total(last: Entry) u32 {
        return last.before + @popCount(last.word);
    }
};

/// What inputs add to a count of which their tables give the ones before the ranks.
inline fn product(comptime bipolar: bool, ones: anytype, ranks: @TypeOf(ones), totals: @TypeOf(ones)) @TypeOf(ones) {
    return if (bipolar) ones +% ones -% ranks -% totals else ones;
}

/// Look-up by permutations of 16 words of 32 bits: one instruction for a table of two registers, 1024 positions.
const InRegisters = struct {
    const usable = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512f);
    const lanes = 16;
    const Lanes = @Vector(lanes, u32);

    extern fn @"llvm.x86.avx512.vpermi2var.d.512"(Lanes, Lanes, Lanes) callconv(.auto) Lanes;

    /// One input of one sample: both halves of its entries in `pairs` pairs of registers.
    fn Table(comptime pairs: usize) type {
        return struct {
            entries: []const Entry,
            words: [2 * pairs]Lanes,
            before: [2 * pairs]Lanes,
            total: u32,

            const Self = @This();

            fn load(entries: []const Entry) Self {
                var halves: [2][2 * pairs * lanes]u32 = @splat(@splat(0));
                for (entries[0..@min(entries.len, 2 * pairs * lanes)], 0..) |entry, k| {
                    halves[0][k] = entry.word;
                    halves[1][k] = entry.before;
                }
                var table: Self = .{
                    .entries = entries,
                    .words = undefined,
                    .before = undefined,
                    .total = entries[entries.len - 1].total(),
                };
                inline for (&table.words, &table.before, 0..) |*word, *before, i| {
                    word.* = halves[0][i * lanes ..][0..lanes].*;
                    before.* = halves[1][i * lanes ..][0..lanes].*;
                }
                return table;
            }

            /// Ones among the first `rank` positions, for a rank in every lane.
            inline fn ones(table: *const Self, rank: Lanes) Lanes {
                const index = rank >> @splat(5);
                const bit: @Vector(lanes, u5) = @truncate(rank);
                const mask = (@as(Lanes, @splat(1)) << bit) -% @as(Lanes, @splat(1));
                const found = select(&table.before, index) + @popCount(select(&table.words, index) & mask);
                // The entry after the last full one has no place in the registers.
                const whole = rank == @as(Lanes, @splat(1024 * pairs));
                return @select(u32, whole, @as(Lanes, @splat(table.total)), found);
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

    /// Add one input of `tile` samples to the counts.
    fn addInput(comptime pairs: usize, comptime tile: usize, comptime bipolar: bool, call: *const abi.Lookup, first: usize, input: usize) void {
        const neurons: usize = call.neuron_count;
        const ranks: [*]const u16 = @ptrCast(call.ranks + input * call.rank_stride);
        var tables: [tile]Table(pairs) = undefined;
        var counts: [tile][]u32 = undefined;
        inline for (0..tile) |s| {
            tables[s] = .load(Entry.row(call, first + s, input));
            counts[s] = countsOf(call, first + s);
        }
        var n: usize = 0;
        while (n + lanes <= neurons) : (n += lanes) {
            const rank: Lanes = @as(@Vector(lanes, u16), ranks[n..][0..lanes].*);
            inline for (0..tile) |s| {
                const out = counts[s][n..][0..lanes];
                const ones = tables[s].ones(rank);
                out.* = @as(Lanes, out.*) +% product(bipolar, ones, rank, @as(Lanes, @splat(tables[s].total)));
            }
        }
        for (n..neurons) |rest| {
            const rank: u32 = ranks[rest];
            inline for (0..tile) |s| counts[s][rest] +%= product(bipolar, InMemory.ones(tables[s].entries.ptr, rank), rank, tables[s].total);
        }
    }

    fn run(comptime pairs: usize, comptime bipolar: bool, call: *const abi.Lookup) void {
        // Samples that share the decoding of a rank, as far as registers hold their tables.
        const tile = if (pairs > 1) 1 else 4;
        var sample: usize = 0;
        while (sample + tile <= call.sample_count) : (sample += tile) {
            for (call.input_begin..call.input_end) |input| addInput(pairs, tile, bipolar, call, sample, input);
        }
        while (sample < call.sample_count) : (sample += 1) {
            for (call.input_begin..call.input_end) |input| addInput(pairs, 1, bipolar, call, sample, input);
        }
    }
};

/// Look-up by permutations of 16 octets, of which a register takes the same in every part: a position's octet, and
/// the ones before it in its piece of 16 octets.
const InOctets = struct {
    const usable = builtin.cpu.arch == .aarch64 or builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .ssse3);
    /// Eight pieces; each doubling takes twice as many instructions, and a register holds no more than 16 pieces' ones.
    const longest = 1024;
    /// Vectors of neurons whose sums are kept at a time, in the first-level cache.
    const block = 64;

    const Numbers = @Vector(octets.width / 2, u16);
    const Octets = octets.Octets;

    /// Vector of neurons: those in even octets, those in odd ones, and of both what is kept in units of 128.
    const Sums = struct { low: [2]Numbers, high: Octets, ranks: [2]Numbers };

    fn Table(comptime pieces: usize) type {
        return struct {
            octets: [pieces]@Vector(16, u8),
            before: [pieces]@Vector(16, u8),
            /// Ones before each piece, by 128 and what is left; after the last piece all of them.
            high: [16]u8,
            low: [16]u8,
            total: u32,

            const Self = @This();

            fn load(entries: []const Entry) Self {
                const total = entries[entries.len - 1].total();
                var table: Self = undefined;
                var words: [4 * pieces]u32 = @splat(0);
                for (entries[0..@min(entries.len, words.len)], 0..) |entry, k| words[k] = entry.word;
                for (0..16) |piece| {
                    const ones = if (4 * piece < @min(entries.len, words.len)) entries[4 * piece].before else total;
                    table.high[piece] = @truncate(ones >> 7);
                    table.low[piece] = @truncate(ones & 127);
                }
                inline for (&table.octets, &table.before, 0..) |*piece, *before, i| {
                    piece.* = @bitCast(@as(@Vector(4, u32), words[4 * i ..][0..4].*));
                    const counts: @Vector(16, u8) = @popCount(piece.*);
                    before.* = std.simd.prefixScan(.Add, 1, counts) - counts;
                }
                table.total = total;
                return table;
            }

            /// Each octet of `index` chooses one of the octets of all pieces.
            inline fn select(pieces_of: *const [pieces]@Vector(16, u8), index: Octets) Octets {
                var found: [pieces]Octets = undefined;
                inline for (&found, pieces_of) |*in_piece, piece| in_piece.* = octets.pick(octets.filled(piece), index);
                comptime var count = pieces;
                comptime var shift = 3;
                inline while (count > 1) : (count /= 2) {
                    // The sign of an octet decides; the bits that pass from one to the next do not.
                    const sign: @Vector(octets.width, i8) = @bitCast(@as(Numbers, @bitCast(index)) << @splat(shift));
                    const upper = sign < @as(@Vector(octets.width, i8), @splat(0));
                    inline for (0..count / 2) |p| found[p] = @select(u8, upper, found[2 * p + 1], found[2 * p]);
                    shift -= 1;
                }
                return found[0];
            }

            inline fn add(table: *const Self, comptime bipolar: bool, row: *const [octets.width]u16, sums: *Sums) void {
                const ranks: [2]Numbers = .{ row[0 .. octets.width / 2].*, row[octets.width / 2 ..].* };
                const seven: Numbers = @splat(7);
                const index: Octets = @bitCast(ranks[0] >> @splat(3) | (ranks[1] << @splat(5) & @as(Numbers, @splat(0xff00))));
                const bit: Octets = @bitCast((ranks[0] & seven) | (ranks[1] & seven) << @splat(8));
                const piece: Octets = @bitCast((@as(Numbers, @bitCast(index)) >> @splat(4)) & @as(Numbers, @splat(0x0f0f)));
                const mask = octets.pick(octets.filled(.{ 0, 1, 3, 7, 15, 31, 63, 127, 0, 0, 0, 0, 0, 0, 0, 0 }), bit);
                // Of the rank that is all of 1024 positions the index is 128, and there is nothing in the octets.
                const in_piece = select(&table.before, index) + @popCount(select(&table.octets, index) & mask);
                const low: Numbers = @bitCast(in_piece + octets.pick(octets.filled(table.low), piece));
                sums.low[0] +%= low & @as(Numbers, @splat(0xff));
                sums.low[1] +%= low >> @splat(8);
                sums.high +%= octets.pick(octets.filled(table.high), piece);
                if (bipolar) inline for (0..2) |half| {
                    sums.ranks[half] +%= ranks[half];
                };
            }
        };
    }

    /// Inputs whose sums have room: of the highest parts in octets, and of ranks in 16 bits.
    fn together(comptime pieces: usize) usize {
        return 255 / pieces;
    }

    fn flush(comptime bipolar: bool, sums: *const Sums, totals: u32, counts: []u32) void {
        const high: Numbers = @bitCast(sums.high);
        const highs: [2]Numbers = .{ high & @as(Numbers, @splat(0xff)), high >> @splat(8) };
        inline for (0..2) |half| {
            const Wide = @Vector(octets.width / 2, u32);
            const ones = @as(Wide, sums.low[half]) + (@as(Wide, highs[half]) << @splat(7));
            const added: [octets.width / 2]u32 = product(bipolar, ones, @as(Wide, sums.ranks[half]), @as(Wide, @splat(totals)));
            const first = half * (octets.width / 2);
            for (added[0 .. @min(@max(first, counts.len), first + added.len) - first], 0..) |number, n| counts[first + n] +%= number;
        }
    }

    /// Add inputs begin .. end to the counts of some neurons of a sample.
    fn addInputs(comptime pieces: usize, comptime bipolar: bool, call: *const abi.Lookup, sample: usize, begin: usize, end: usize, first: usize, counts: []u32) void {
        var sums: [block]Sums = undefined;
        const vectors = (counts.len + octets.width - 1) / octets.width;
        const full = counts.len / octets.width;
        @memset(sums[0..vectors], std.mem.zeroes(Sums));
        var totals: u32 = 0;
        for (begin..end) |input| {
            const ranks = @as([*]const u16, @ptrCast(call.ranks + input * call.rank_stride)) + first;
            const table: Table(pieces) = .load(Entry.row(call, sample, input));
            totals +%= table.total;
            for (sums[0..full], 0..) |*vector, v| {
                table.add(bipolar, ranks[v * octets.width ..][0..octets.width], vector);
            }
            if (full < vectors) {
                var rest: [octets.width]u16 = @splat(0);
                @memcpy(rest[0 .. counts.len - full * octets.width], ranks[full * octets.width .. counts.len]);
                table.add(bipolar, &rest, &sums[full]);
            }
        }
        for (sums[0..vectors], 0..) |*vector, v| {
            flush(bipolar, vector, totals, counts[v * octets.width .. @min((v + 1) * octets.width, counts.len)]);
        }
    }

    fn run(comptime pieces: usize, comptime bipolar: bool, call: *const abi.Lookup) void {
        for (0..call.sample_count) |sample| {
            const counts = countsOf(call, sample);
            var first: usize = 0;
            while (first < counts.len) : (first += block * octets.width) {
                const some = counts[first..@min(first + block * octets.width, counts.len)];
                var input: usize = call.input_begin;
                while (input < call.input_end) : (input += together(pieces)) {
                    addInputs(pieces, bipolar, call, sample, input, @min(input + together(pieces), call.input_end), first, some);
                }
            }
        }
    }
};

/// Look-up in memory: a load of each half, and one count of ones.
const InMemory = struct {
    /// Ones among the first `rank` positions.
    inline fn ones(entries: [*]const Entry, rank: u32) u32 {
        const entry = &entries[rank >> 5];
        const mask = (@as(u32, 1) << @truncate(rank)) -% 1;
        return entry.before + @popCount(alone(entry.word & mask));
    }

    /// The same where another entry follows: those before it less the rest of its word, which takes one shift.
    inline fn onesAsRest(entries: [*]const Entry, rank: u32) u32 {
        const rest = entries[rank >> 5].word >> @truncate(rank);
        return entries[(rank >> 5) + 1].before -% @popCount(alone(rest));
    }

    /// The same number, of which the compiler does not know where it comes from: look-ups that it joins into vectors take
    /// three times as long.
    inline fn alone(number: u32) u32 {
        return asm (""
            : [same] "=r" (-> u32),
            : [number] "0" (number),
        );
    }

    /// Entries of an input and one more, copied so that rows are read one after the other, and tables lie at fixed places.
    const room = 264;
    /// The longest streams whose entries have room.
    const longest_copied = 32 * (room - 2);

    /// Add inputs that follow each other to the counts of a sample.
    fn addInputs(comptime Rank: type, comptime inputs: usize, comptime bipolar: bool, call: *const abi.Lookup, sample: usize, first: usize) void {
        const copied = inputs > 1;
        var copies: [inputs][if (copied) room else 0]Entry = undefined;
        var tables: [inputs][*]const Entry = undefined;
        var ranks: [inputs][*]const Rank = undefined;
        var totals: u32 = 0;
        inline for (0..inputs) |i| {
            const row = Entry.row(call, sample, first + i);
            if (copied) {
                @memcpy(copies[i][0..row.len], row);
                copies[i][row.len] = .{ .word = 0, .before = row[row.len - 1].total() };
            }
            tables[i] = if (copied) &copies[i] else row.ptr;
            ranks[i] = @ptrCast(call.ranks + (first + i) * call.rank_stride);
            totals +%= row[row.len - 1].total();
        }
        for (countsOf(call, sample), 0..) |*count, n| {
            var sum: u32 = 0;
            var rank_sum: u32 = 0;
            inline for (tables, ranks) |table, ranks_of_input| {
                const rank: u32 = ranks_of_input[n];
                sum +%= if (copied) onesAsRest(table, rank) else ones(table, rank);
                if (bipolar) rank_sum +%= rank;
            }
            count.* +%= product(bipolar, sum, rank_sum, totals);
        }
    }

    fn run(comptime Rank: type, comptime bipolar: bool, call: *const abi.Lookup) void {
        const inputs = 4;
        for (0..call.sample_count) |sample| {
            var input: usize = call.input_begin;
            if (call.length <= longest_copied) {
                while (input + inputs <= call.input_end) : (input += inputs) addInputs(Rank, inputs, bipolar, call, sample, input);
            }
            while (input < call.input_end) : (input += 1) addInputs(Rank, 1, bipolar, call, sample, input);
        }
    }
};

fn countsOf(call: *const abi.Lookup, sample: usize) []u32 {
    return (call.counts + call.count_offset + sample * call.count_stride)[0..call.neuron_count];
}

fn polar(comptime bipolar: bool, call: *const abi.Lookup) void {
    if (call.rank_bits != 16) return InMemory.run(u32, bipolar, call);
    if (InRegisters.usable) {
        if (call.length <= 1024) return InRegisters.run(1, bipolar, call);
        if (call.length <= 2048) return InRegisters.run(2, bipolar, call);
        if (call.length <= 4096) return InRegisters.run(4, bipolar, call);
    } else if (InOctets.usable) {
        if (call.length <= 256) return InOctets.run(2, bipolar, call);
        if (call.length <= 512) return InOctets.run(4, bipolar, call);
        if (call.length <= InOctets.longest) return InOctets.run(8, bipolar, call);
    }
    InMemory.run(u16, bipolar, call);
}

pub fn lookup(call: *const abi.Lookup) callconv(.c) void {
    if (call.accumulate == 0) {
        for (0..call.sample_count) |sample| @memset(countsOf(call, sample), call.initial);
    }
    if (call.bipolar != 0) polar(true, call) else polar(false, call);
}

test "look-ups in memory, in octets and in registers find the same" {
    var random: std.Random.DefaultPrng = .init(7);
    inline for (.{ 1, 31, 256, 500, 512, 1000, 1024, 1500, 4096 }) |length| {
        const inputs = 11;
        const neurons = 150;
        const entry_count = length / 32 + 1;
        var entries: [inputs * entry_count]u64 = undefined;
        var ones: [inputs][length + 1]u32 = undefined;
        var ranks: [inputs * neurons]u16 = undefined;
        for (0..inputs) |input| {
            ones[input][0] = 0;
            for (0..length) |t| ones[input][t + 1] = ones[input][t] + @intFromBool(input == 3 or input != 4 and random.random().boolean());
            for (entries[input * entry_count ..][0..entry_count], 0..) |*entry, k| {
                var word: u32 = 0;
                for (32 * k..@min(32 * k + 32, length)) |t| word |= (ones[input][t + 1] - ones[input][t]) << @intCast(t % 32);
                entry.* = word | @as(u64, ones[input][32 * k]) << 32;
            }
        }
        for (&ranks, 0..) |*rank, i| rank.* = if (i % 7 == 0) length else random.random().uintAtMost(u16, length);
        inline for (.{ false, true }) |bipolar| {
            var expected: [neurons]u32 = @splat(5);
            for (0..inputs) |input| for (&expected, 0..) |*count, n| {
                const rank = ranks[input * neurons + n];
                count.* +%= product(bipolar, ones[input][rank], rank, ones[input][length]);
            };
            var counts: [neurons]u32 = undefined;
            var call = std.mem.zeroes(abi.Lookup);
            call = .{
                .sample_count = 1,
                .neuron_count = neurons,
                .input_count = inputs,
                .input_begin = 0,
                .input_end = inputs,
                .length = length,
                .rank_bits = 16,
                .rank_stride = neurons / 2,
                .count_offset = 0,
                .count_stride = neurons,
                .initial = 5,
                .accumulate = 0,
                .bipolar = @intFromBool(bipolar),
                .ranks = @ptrCast(@alignCast(&ranks)),
                .ranks_len = ranks.len / 2,
                .entries = &entries,
                .entries_len = entries.len,
                .counts = &counts,
                .counts_len = counts.len,
            };
            lookup(&call);
            try std.testing.expectEqual(expected, counts);
            counts = @splat(5);
            InMemory.run(u16, bipolar, &call);
            try std.testing.expectEqual(expected, counts);
            if (InOctets.usable and length <= InOctets.longest) {
                counts = @splat(5);
                InOctets.run(8, bipolar, &call);
                try std.testing.expectEqual(expected, counts);
            }
        }
    }
}
