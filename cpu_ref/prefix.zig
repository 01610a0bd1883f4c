//! prefix: ones among the first positions of a comparator sequence, in entries of 32 positions.
//! Computes:  entries[s, i, k] = bits of words[sample_begin + s, i] at positions order[i, 32k ..
//!            32k + 32] in the lower half, and how many of the positions before them hold ones in the upper half,
//!            for the inputs input_begin .. input_end; order_bits 0 stands for order[i, k] = k
//! Padding:   bits past the last position are 0; a row has length / 32 + 1 entries
//! Exactness: integer; equals shaders/prefix.wgsl bit for bit

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");

const permute = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512bw);

const Indices = @Vector(32, u16);
extern fn @"llvm.x86.avx512.vpermi2var.hi.512"(Indices, Indices, Indices) callconv(.auto) Indices;

/// Streams up to this length are permuted from registers; each doubling takes twice as many instructions.
const longest_permuted = if (permute) 8192 else 4096;

/// Bits of a stream in an order of 16-bit positions, by permutations of 32 words of 16 bits. Registers hold
/// `pairs` pairs of 1024 bits.
const Permuted = if (permute) PermutedWords else PermutedOctets;

const PermutedWords = struct {
    fn bits(comptime pairs: usize, words: *const [2 * pairs]Indices, order: *const [32]u16) u32 {
        const position: Indices = order.*;
        const index = position >> @splat(4);
        var found: [pairs]Indices = undefined;
        inline for (0..pairs) |p| found[p] = @"llvm.x86.avx512.vpermi2var.hi.512"(words[2 * p], index, words[2 * p + 1]);
        comptime var width = pairs;
        comptime var bit = 10;
        inline while (width > 1) : (width /= 2) {
            const upper = (position & @as(Indices, @splat(1 << bit))) != @as(Indices, @splat(0));
            inline for (0..width / 2) |p| found[p] = @select(u16, upper, found[2 * p + 1], found[2 * p]);
            bit += 1;
        }
        const one = @as(Indices, @splat(1)) << @intCast(position & @as(Indices, @splat(15)));
        return @bitCast((found[0] & one) != @as(Indices, @splat(0)));
    }

    fn row(comptime pairs: usize, words: []const u64, order: [*]const u16, length: usize, entries: []u64) void {
        var padded: [2 * pairs]Indices = @splat(@splat(0));
        const flat: *[16 * pairs]u64 = @ptrCast(&padded);
        @memcpy(flat[0..words.len], words);
        var ones: u64 = 0;
        for (entries[0 .. length / 32], 0..) |*entry, k| {
            const found = bits(pairs, &padded, order[32 * k ..][0..32]);
            entry.* = found | ones << 32;
            ones += @popCount(found);
        }
        entries[length / 32] = gather(u16, words, order, length & ~@as(usize, 31), length) | ones << 32;
    }
};

/// The same by permutations of 16 octets, with which a register is filled.
const PermutedOctets = struct {
    const width = if (builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx2)) 32 else 16;
    const Octets = @Vector(width, u8);

    extern fn @"llvm.x86.avx2.pshuf.b"(Octets, Octets) callconv(.auto) Octets;
    extern fn @"llvm.x86.ssse3.pshuf.b.128"(Octets, Octets) callconv(.auto) Octets;
    extern fn @"llvm.aarch64.neon.tbl1.v16i8"(Octets, Octets) callconv(.auto) Octets;

    /// The octet at each index, 0 to 15, of the 16 in `from`.
    inline fn pick(from: Octets, index: Octets) Octets {
        if (builtin.cpu.arch == .aarch64) return @"llvm.aarch64.neon.tbl1.v16i8"(from, index);
        return if (width == 32) @"llvm.x86.avx2.pshuf.b"(from, index) else @"llvm.x86.ssse3.pshuf.b.128"(from, index);
    }

    fn bits(comptime pieces: usize, octets: *const [pieces]Octets, order: *const [width]u16) u32 {
        const position: @Vector(width, u16) = order.*;
        const index = @as(Octets, @truncate(position >> @splat(3))) & @as(Octets, @splat(15));
        const piece: Octets = @truncate(position >> @splat(7));
        var found: [pieces]Octets = undefined;
        inline for (&found, octets) |*in_piece, piece_octets| in_piece.* = pick(piece_octets, index);
        comptime var count = pieces;
        comptime var bit = 1;
        inline while (count > 1) : (count /= 2) {
            const upper = (piece & @as(Octets, @splat(bit))) != @as(Octets, @splat(0));
            inline for (0..count / 2) |p| found[p] = @select(u8, upper, found[2 * p + 1], found[2 * p]);
            bit *= 2;
        }
        const ones = comptime std.simd.repeat(width, @Vector(8, u8){ 1, 2, 4, 8, 16, 32, 64, 128 });
        const one = pick(ones, @as(Octets, @truncate(position)) & @as(Octets, @splat(7)));
        return @as(@Int(.unsigned, width), @bitCast((found[0] & one) != @as(Octets, @splat(0))));
    }

    fn row(comptime pairs: usize, words: []const u64, order: [*]const u16, length: usize, entries: []u64) void {
        const pieces = 8 * pairs;
        var padded: [2 * pieces]u64 = @splat(0);
        @memcpy(padded[0..words.len], words);
        var octets: [pieces]Octets = undefined;
        for (&octets, 0..) |*piece, i| piece.* = std.simd.repeat(width, @as(@Vector(16, u8), @bitCast(padded[2 * i ..][0..2].*)));
        var ones: u64 = 0;
        for (entries[0 .. length / 32], 0..) |*entry, k| {
            var found: u32 = 0;
            inline for (0..32 / width) |part| {
                found |= bits(pieces, &octets, order[32 * k + part * width ..][0..width]) << (part * width);
            }
            entry.* = found | ones << 32;
            ones += @popCount(found);
        }
        entries[length / 32] = gather(u16, words, order, length & ~@as(usize, 31), length) | ones << 32;
    }
};

/// Bits begin .. end of a stream in an order, one by one.
fn gather(comptime Position: type, words: []const u64, order: [*]const Position, begin: usize, end: usize) u32 {
    var found: u32 = 0;
    for (order[begin..end], 0..) |position, bit| {
        const one: u32 = @truncate(words[position >> 6] >> @truncate(position));
        found |= (one & 1) << @truncate(bit);
    }
    return found;
}

fn gatherRow(comptime Position: type, words: []const u64, order: [*]const Position, length: usize, entries: []u64) void {
    var ones: u64 = 0;
    for (entries, 0..) |*entry, k| {
        const found = gather(Position, words, order, 32 * k, @min(32 * k + 32, length));
        entry.* = found | ones << 32;
        ones += @popCount(found);
    }
}

fn identityRow(words: []const u64, entries: []u64) void {
    const Words = @Vector(8, u32);
    const flat: []const u32 = @ptrCast(words);
    var k: usize = 0;
    var before: Words = @splat(0);
    while (k + 8 <= @min(flat.len, entries.len)) : (k += 8) {
        const eight: Words = flat[k..][0..8].*;
        const counts: Words = @popCount(eight);
        const through = std.simd.prefixScan(.Add, 1, counts) + before;
        const pairs: [16]u32 align(8) = std.simd.interlace(.{ eight, through - counts });
        @memcpy(entries[k..][0..8], @as(*const [8]u64, @ptrCast(@alignCast(&pairs))));
        before = @splat(through[7]);
    }
    var ones: u64 = before[0];
    for (entries[k..], k..) |*entry, at| {
        const word = if (at / 2 < words.len) words[at / 2] else 0;
        const found: u32 = @truncate(word >> @truncate(32 * (at % 2)));
        entry.* = found | ones << 32;
        ones += @popCount(found);
    }
}

pub fn prefix(call: *const abi.Prefix) callconv(.c) void {
    const length: usize = call.length;
    const word_count = (length + 63) / 64;
    const entry_count = length / 32 + 1;
    const input_count: usize = call.input_count;
    const first: usize = call.sample_begin;
    const begin: usize = call.input_begin;
    const end: usize = call.input_end;
    const order_bits = call.order_bits;
    const stride: usize = call.order_stride;
    for (0..call.sample_count) |sample| {
        for (begin..@max(begin, end)) |input| {
            const index = sample * input_count + input;
            const words = call.words[(first * input_count + index) * word_count ..][0..word_count];
            const entries = call.entries[index * entry_count ..][0..entry_count];
            const order = call.order + (input - begin) * stride;
            if (order_bits == 0) {
                identityRow(words, entries);
            } else if (order_bits != 16) {
                gatherRow(u32, words, order, length, entries);
            } else {
                const narrow: [*]const u16 = @ptrCast(order);
                if (length > longest_permuted) {
                    gatherRow(u16, words, narrow, length, entries);
                } else if (length <= 1024) {
                    Permuted.row(1, words, narrow, length, entries);
                } else if (length <= 2048) {
                    Permuted.row(2, words, narrow, length, entries);
                } else if (length <= 4096) {
                    Permuted.row(4, words, narrow, length, entries);
                } else if (permute) {
                    Permuted.row(8, words, narrow, length, entries);
                }
            }
        }
    }
}

test "rows in an order, from registers and from memory" {
    var random: std.Random.DefaultPrng = .init(4);
    inline for (.{ .{ 1, 1000 }, .{ 1, 1024 }, .{ 2, 1500 }, .{ 4, 4096 }, .{ 8, 8191 } }) |shape| {
        const length = shape[1];
        var words: [(length + 63) / 64]u64 = undefined;
        random.random().bytes(std.mem.asBytes(&words));
        if (length % 64 != 0) words[words.len - 1] &= (1 << length % 64) - 1;
        var order: [length]u16 = undefined;
        for (&order, 0..) |*position, i| position.* = @intCast(i);
        var entries: [2][length / 32 + 1]u64 = undefined;
        identityRow(&words, &entries[0]);
        gatherRow(u16, &words, &order, length, &entries[1]);
        try std.testing.expectEqual(entries[0], entries[1]);
        random.random().shuffle(u16, &order);
        gatherRow(u16, &words, &order, length, &entries[0]);
        var ones: u64 = 0;
        for (order, 0..) |position, k| {
            if (k % 32 == 0) try std.testing.expectEqual(ones, entries[0][k / 32] >> 32);
            const bit = words[position / 64] >> @truncate(position) & 1;
            try std.testing.expectEqual(bit, entries[0][k / 32] >> @intCast(k % 32) & 1);
            ones += bit;
        }
        if (length <= longest_permuted) {
            Permuted.row(shape[0], &words, &order, length, &entries[1]);
            try std.testing.expectEqual(entries[0], entries[1]);
        }
    }
}
