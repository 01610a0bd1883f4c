//! prefix: ones among the first positions of a comparator sequence, in entries of 32 positions.
//! Computes:  entries[s, i, k] = bits of words[sample_begin + s, i] at positions order[i, 32k ..
//!            32k + 32] in the lower half, and how many of the positions before them hold ones in the upper half,
//!            for the inputs input_begin .. input_end; order_bits 0 stands for order[i, k] = k
//! Padding:   bits past the last position are 0; a row has length / 32 + 1 entries
//! Exactness: integer; equals shaders/prefix.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

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
            switch (order_bits) {
                0 => identityRow(words, entries),
                16 => gatherRow(u16, words, @ptrCast(order), length, entries),
                else => gatherRow(u32, words, order, length, entries),
            }
        }
    }
}

test "rows of streams in their own order and in another" {
    var random: std.Random.DefaultPrng = .init(4);
    inline for (.{ 1, 31, 32, 500, 1000, 1024, 4095 }) |length| {
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
    }
}
