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

/// Table by permutations of 32 words of 16 bits: a word of 16 positions and the ones before it, of 1024 positions in
/// one instruction each.
fn WordTable(comptime pairs: usize) type {
    return struct {
        words: [2 * pairs]Numbers,
        before: [2 * pairs]Numbers,
        total: u32,

        const Self = @This();
        const width = 32;
        const Numbers = @Vector(width, u16);
        const Sums = struct { ones: Numbers, ranks: Numbers };

        /// Inputs whose sums have room.
        const together = 63 / pairs;

        extern fn @"llvm.x86.avx512.vpermi2var.hi.512"(Numbers, Numbers, Numbers) callconv(.auto) Numbers;

        fn load(entries: []const Entry) Self {
            const Halves = @Vector(width / 2, u32);
            var words: [pairs * width]u32 = @splat(0);
            var passed: [pairs * width]u32 = @splat(0);
            for (entries[0..@min(entries.len, words.len)], 0..) |entry, k| {
                words[k] = entry.word;
                passed[k] = entry.before;
            }
            var table: Self = .{ .words = undefined, .before = undefined, .total = entries[entries.len - 1].total() };
            inline for (&table.words, &table.before, 0..) |*word, *before, i| {
                const both: Halves = words[i * width / 2 ..][0 .. width / 2].*;
                const first: Halves = passed[i * width / 2 ..][0 .. width / 2].*;
                const second = first + @popCount(both & @as(Halves, @splat(0xffff)));
                word.* = @bitCast(both);
                before.* = @bitCast(first | second << @splat(16));
            }
            return table;
        }

        inline fn select(halves: *const [2 * pairs]Numbers, index: Numbers) Numbers {
            var found: [pairs]Numbers = undefined;
            inline for (0..pairs) |p| found[p] = @"llvm.x86.avx512.vpermi2var.hi.512"(halves[2 * p], index, halves[2 * p + 1]);
            comptime var count = pairs;
            comptime var bit = 2 * width;
            inline while (count > 1) : (count /= 2) {
                const upper = (index & @as(Numbers, @splat(bit))) != @as(Numbers, @splat(0));
                inline for (0..count / 2) |p| found[p] = @select(u16, upper, found[2 * p + 1], found[2 * p]);
                bit *= 2;
            }
            return found[0];
        }

        inline fn add(table: *const Self, comptime bipolar: bool, row: *const [width]u16, sums: *Sums) void {
            const rank: Numbers = row.*;
            const index = rank >> @splat(4);
            const bit: @Vector(width, u4) = @truncate(rank);
            const mask = (@as(Numbers, @splat(1)) << bit) -% @as(Numbers, @splat(1));
            const found = select(&table.before, index) + @popCount(select(&table.words, index) & mask);
            // The word after the last one has no place in the registers.
            const whole = rank == @as(Numbers, @splat(1024 * pairs));
            sums.ones +%= @select(u16, whole, @as(Numbers, @splat(@truncate(table.total))), found);
            if (bipolar) sums.ranks +%= rank;
        }

        fn flush(comptime bipolar: bool, sums: *const Sums, totals: u32) [width]u32 {
            const Wide = @Vector(width, u32);
            return product(bipolar, @as(Wide, sums.ones), @as(Wide, sums.ranks), @as(Wide, @splat(totals)));
        }
    };
}

/// Table by permutations of 16 octets, with which a register is filled: an octet of positions, and the ones before it in
/// its piece of 16 octets. A register holds the ones before up to 16 pieces.
fn OctetTable(comptime pieces: usize) type {
    return struct {
        octets: [pieces]@Vector(16, u8),
        before: [pieces]@Vector(16, u8),
        /// Ones before each piece, by 128 and what is left; after the last piece all of them.
        high: [16]u8,
        low: [16]u8,
        total: u32,

        const Self = @This();
        const width = octets.width;
        const Numbers = @Vector(width / 2, u16);
        const Octets = octets.Octets;

        /// Of neurons in even octets, of those in odd ones, and of both what is kept in units of 128; ranks by halves.
        const Sums = struct { low: [2]Numbers, high: Octets, ranks: [2]Numbers };

        /// Inputs whose sums have room: of the highest parts in octets, and of ranks in 16 bits.
        const together = 255 / pieces;

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
                const sign: @Vector(width, i8) = @bitCast(@as(Numbers, @bitCast(index)) << @splat(shift));
                const upper = sign < @as(@Vector(width, i8), @splat(0));
                inline for (0..count / 2) |p| found[p] = @select(u8, upper, found[2 * p + 1], found[2 * p]);
                shift -= 1;
            }
            return found[0];
        }

        inline fn add(table: *const Self, comptime bipolar: bool, row: *const [width]u16, sums: *Sums) void {
            const ranks: [2]Numbers = .{ row[0 .. width / 2].*, row[width / 2 ..].* };
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

        fn flush(comptime bipolar: bool, sums: *const Sums, totals: u32) [width]u32 {
            const Wide = @Vector(width / 2, u32);
            const high: Numbers = @bitCast(sums.high);
            const highs: [2]Numbers = .{ high & @as(Numbers, @splat(0xff)), high >> @splat(8) };
            var added: [width]u32 = undefined;
            inline for (0..2) |half| {
                const ones = @as(Wide, sums.low[half]) + (@as(Wide, highs[half]) << @splat(7));
                const numbers = product(bipolar, ones, @as(Wide, sums.ranks[half]), @as(Wide, @splat(totals)));
                added[half * width / 2 ..][0 .. width / 2].* = numbers;
            }
            return added;
        }
    };
}

/// Look-up in tables that registers hold, for vectors of neurons whose sums stay in 16 bits for some inputs.
fn InRegisters(comptime Table: type) type {
    return struct {
        /// Vectors of neurons whose sums are kept at a time, in the first-level cache.
        const block = 64;
        /// Bytes of ranks that are asked for before they are needed.
        const ahead = 4096;
        const width = Table.width;

        /// Add inputs begin .. end to the counts of some neurons of a sample, of which `first` is the first.
        fn addInputs(comptime bipolar: bool, call: *const abi.Lookup, sample: usize, begin: usize, end: usize, first: usize, counts: []u32) void {
            var sums: [block]Table.Sums = undefined;
            const vectors = (counts.len + width - 1) / width;
            const full = counts.len / width;
            @memset(sums[0..vectors], std.mem.zeroes(Table.Sums));
            var totals: u32 = 0;
            for (begin..end) |input| {
                const ranks = @as([*]const u16, @ptrCast(call.ranks + input * call.rank_stride)) + first;
                const table: Table = .load(Entry.row(call, sample, input));
                totals +%= table.total;
                for (sums[0..full], 0..) |*vector, v| {
                    // Ranks are read once, and mostly from far away.
                    @prefetch(@as(*const u8, @ptrFromInt(@intFromPtr(ranks + v * width) + ahead)), .{});
                    table.add(bipolar, ranks[v * width ..][0..width], vector);
                }
                if (full < vectors) {
                    var rest: [width]u16 = @splat(0);
                    @memcpy(rest[0 .. counts.len - full * width], ranks[full * width .. counts.len]);
                    table.add(bipolar, &rest, &sums[full]);
                }
            }
            for (sums[0..vectors], 0..) |*vector, v| {
                const some = counts[v * width .. @min((v + 1) * width, counts.len)];
                const added = Table.flush(bipolar, vector, totals);
                for (some, added[0..some.len]) |*count, number| count.* +%= number;
            }
        }

        fn run(comptime bipolar: bool, call: *const abi.Lookup) void {
            for (0..call.sample_count) |sample| {
                const counts = countsOf(call, sample);
                var first: usize = 0;
                while (first < counts.len) : (first += block * width) {
                    const some = counts[first..@min(first + block * width, counts.len)];
                    var input: usize = call.input_begin;
                    while (input < call.input_end) : (input += Table.together) {
                        addInputs(bipolar, call, sample, input, @min(input + Table.together, call.input_end), first, some);
                    }
                }
            }
        }
    };
}

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

const permutes_words = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512bw);
const permutes_octets = builtin.cpu.arch == .aarch64 or builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .ssse3);

fn polar(comptime bipolar: bool, call: *const abi.Lookup) void {
    if (call.rank_bits != 16) return InMemory.run(u32, bipolar, call);
    if (permutes_words) {
        if (call.length <= 1024) return InRegisters(WordTable(1)).run(bipolar, call);
        if (call.length <= 2048) return InRegisters(WordTable(2)).run(bipolar, call);
        if (call.length <= 4096) return InRegisters(WordTable(4)).run(bipolar, call);
    } else if (permutes_octets) {
        // Twice the octets take twice the instructions.
        if (call.length <= 256) return InRegisters(OctetTable(2)).run(bipolar, call);
        if (call.length <= 512) return InRegisters(OctetTable(4)).run(bipolar, call);
        if (call.length <= 1024) return InRegisters(OctetTable(8)).run(bipolar, call);
    }
    InMemory.run(u16, bipolar, call);
}

pub fn lookup(call: *const abi.Lookup) callconv(.c) void {
    if (call.accumulate == 0) {
        for (0..call.sample_count) |sample| @memset(countsOf(call, sample), call.initial);
    }
    if (call.bipolar != 0) polar(true, call) else polar(false, call);
}

test "look-ups in memory and in registers find the same" {
    var random: std.Random.DefaultPrng = .init(7);
    inline for (.{ 1, 31, 256, 500, 512, 1000, 1024, 1500, 2048, 4000, 4096, 8192 }) |length| {
        const inputs = 70;
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
            if (permutes_octets and length <= 1024) {
                counts = @splat(5);
                InRegisters(OctetTable(8)).run(bipolar, &call);
                try std.testing.expectEqual(expected, counts);
            }
        }
    }
}
