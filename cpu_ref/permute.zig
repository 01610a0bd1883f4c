//! permute: streams in the order that a network of exchanges gives them.
//! Computes:  permuted[s, i] = words[sample_begin + s, i] after the stages of input i's network, for the inputs
//!            input_begin .. input_end; a stage of stride d exchanges bits p and p + d where its mask is 1
//! Layout:    strides width / 2 ... 2, 1, 2 ... width / 2. Masks come in the order of their use, in chunks of 512 bits:
//!            of strides of 512 and more one for each two that they exchange, then for each 512 bits those of
//!            strides 256 ... 1 ... 256, where a mask is 1 at both bits
//! Padding:   a stream is 0 past its length, before and after
//! Exactness: integer; equals shaders/permute.wgsl bit for bit
//! Source:    Benes: Mathematical Theory of Connecting Networks (1965); the looping algorithm of Opferman and
//!            Tsao-Wu: On a Class of Rearrangeable Switching Networks (1971) in `route`

const std = @import("std");
const abi = @import("abi.zig");

const chunk_bits = 512;
const chunk_words = chunk_bits / 64;
const Chunk = @Vector(chunk_words, u64);

/// Bytes that are asked for before they are needed: masks are read once, and mostly from far away.
const ahead = 4096;

/// Strides within a chunk, in the order of their stages.
const strides = [_]usize{ 256, 128, 64, 32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32, 64, 128, 256 };

/// The network's masks of one input.
pub fn maskWords(index_bits: usize) usize {
    return (index_bits + 8) << @intCast(index_bits - 6);
}

inline fn lane(comptime Element: type, comptime distance: usize, chunk: Chunk) Chunk {
    const count = chunk_bits / @bitSizeOf(Element);
    const flat: @Vector(count, Element) = @bitCast(chunk);
    const there = comptime std.simd.iota(i32, count) ^ @as(@Vector(count, i32), @splat(distance));
    return @bitCast(@shuffle(Element, flat, undefined, there));
}

/// The chunk with bits p and p ^ stride exchanged where the mask is 1.
inline fn exchanged(comptime stride: usize, chunk: Chunk, mask: Chunk) Chunk {
    if (stride < 8) {
        const lower: u64 = switch (stride) {
            1 => 0x5555_5555_5555_5555,
            2 => 0x3333_3333_3333_3333,
            else => 0x0f0f_0f0f_0f0f_0f0f,
        };
        const shift: @Vector(chunk_words, u6) = @splat(stride);
        const moved = (chunk ^ chunk >> shift) & mask & @as(Chunk, @splat(lower));
        return chunk ^ moved ^ moved << shift;
    }
    const other = switch (stride) {
        8 => lane(u8, 1, chunk),
        16 => lane(u16, 1, chunk),
        32 => lane(u32, 1, chunk),
        else => lane(u64, stride / 64, chunk),
    };
    return chunk ^ ((chunk ^ other) & mask);
}

/// A stage whose stride is `distance` chunks; the masks that follow.
inline fn outer(comptime chunks: usize, comptime distance: usize, bits: *[chunks]Chunk, masks: [*]const u64) [*]const u64 {
    comptime var pair = 0;
    inline for (0..chunks) |lower| {
        if (lower & distance == 0) {
            const mask: Chunk = masks[chunk_words * pair ..][0..chunk_words].*;
            const moved = (bits[lower] ^ bits[lower + distance]) & mask;
            bits[lower] ^= moved;
            bits[lower + distance] ^= moved;
            pair += 1;
        }
    }
    return masks + chunk_words * pair;
}

fn network(comptime chunks: usize, bits: *[chunks]Chunk, first: [*]const u64) void {
    var masks = first;
    comptime var distance = chunks / 2;
    inline while (distance > 0) : (distance /= 2) masks = outer(chunks, distance, bits, masks);
    // A chunk's stages wait for each other, chunks do not; registers of 128 bits hold no more than one.
    const together = if ((std.simd.suggestVectorLength(u64) orelse 1) >= 4) @min(chunks, 2) else 1;
    for (0..chunks / together) |group| {
        var held: [together]Chunk = bits[group * together ..][0..together].*;
        inline for (strides, 0..) |stride, stage| {
            inline for (&held, 0..) |*chunk, i| {
                const at = masks + chunk_words * (strides.len * i + stage);
                @prefetch(@as(*const u8, @ptrFromInt(@intFromPtr(at) + ahead)), .{});
                chunk.* = exchanged(stride, chunk.*, at[0..chunk_words].*);
            }
        }
        bits[group * together ..][0..together].* = held;
        masks += chunk_words * strides.len * together;
    }
    distance = 1;
    inline while (distance < chunks) : (distance *= 2) masks = outer(chunks, distance, bits, masks);
}

fn run(comptime index_bits: usize, call: *const abi.Permute) void {
    const chunks = (1 << index_bits) / chunk_bits;
    const length: usize = call.length;
    const word_count = (length + 63) / 64;
    if (word_count == 0) return;
    const tail = @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(64 * word_count - length);
    for (call.input_begin..call.input_end) |input| {
        const masks = call.masks + (input - call.input_begin) * comptime maskWords(index_bits);
        for (0..call.sample_count) |sample| {
            const row = sample * call.input_count + input;
            var bits: [chunks]Chunk = @splat(@splat(0));
            const flat: *[chunks * chunk_words]u64 = @ptrCast(&bits);
            const first = call.sample_begin * @as(usize, call.input_count);
            @memcpy(flat[0..word_count], call.words[(first + row) * word_count ..][0..word_count]);
            network(chunks, &bits, masks);
            const permuted = call.permuted[row * word_count ..][0..word_count];
            @memcpy(permuted, flat[0..word_count]);
            permuted[word_count - 1] &= tail;
        }
    }
}

pub fn permute(call: *const abi.Permute) callconv(.c) void {
    switch (call.index_bits) {
        9 => run(9, call),
        10 => run(10, call),
        11 => run(11, call),
        12 => run(12, call),
        13 => run(13, call),
        else => {},
    }
}

pub const least_index_bits = 9;
pub const most_index_bits = 13;

/// Where the mask of a bit lies.
fn place(index_bits: usize, stride: usize, up: bool, lower: usize) usize {
    const chunks = @as(usize, 1) << @intCast(index_bits - 9);
    const outers = (index_bits - 9) * chunks / 2;
    if (stride >= chunk_bits) {
        const distance = stride / chunk_bits;
        const chunk = lower / chunk_bits;
        const pair = chunk / (2 * distance) * distance + chunk % distance;
        const level = @ctz(distance);
        const before = if (up) outers + strides.len * chunks + level * chunks / 2 else (index_bits - 10 - level) * chunks / 2;
        return (before + pair) * chunk_bits + lower % chunk_bits;
    }
    const middle = strides.len / 2;
    const stage = if (up) middle + @ctz(stride) else middle - @ctz(stride);
    return (outers + lower / chunk_bits * strides.len + stage) * chunk_bits + lower % chunk_bits;
}

/// The masks with which bit p of what comes out is bit order[p] of what went in, and bits past the order stay.
/// False, with masks of no use, where the order is not a permutation.
pub fn route(order: []const u16, index_bits: usize, masks: []u64) bool {
    const most = 1 << most_index_bits;
    const width = @as(usize, 1) << @intCast(index_bits);
    // Of the blocks of one stage and the next: where what comes out at p went in, and the reverse.
    var sources: [2][most]u16 = undefined;
    var targets: [most]u16 = undefined;
    const nowhere = 0xffff;
    @memset(targets[0..width], nowhere);
    for (sources[0][0..width], 0..) |*source, p| {
        source.* = if (p < order.len) order[p] else @intCast(p);
        if (source.* >= width or targets[source.*] != nowhere) return false;
        targets[source.*] = @intCast(p);
    }
    @memset(masks, 0);
    var stride = width / 2;
    var now: usize = 0;
    while (stride > 0) : (stride /= 2) {
        const from, const to = .{ &sources[now], &sources[1 - now] };
        var begin: usize = 0;
        while (begin < width) : (begin += 2 * stride) {
            routeBlock(index_bits, stride, begin, from[begin..][0 .. 2 * stride], targets[begin..][0 .. 2 * stride], to[begin..][0 .. 2 * stride], masks);
        }
        for (to[0..width], 0..) |source, p| targets[p / stride * stride + source] = @intCast(p % stride);
        now = 1 - now;
    }
    return true;
}

/// The first and last stage of a block: each pair's bits go through different halves, and come out of them.
fn routeBlock(index_bits: usize, stride: usize, begin: usize, sources: []u16, targets: []const u16, halves: []u16, masks: []u64) void {
    const taken = 0x8000;
    for (0..stride) |start| {
        var out = start;
        // Out comes from the lower half; what shares its input's pair goes through the upper one, and so on around.
        while (sources[out] & taken == 0) {
            const in = sources[out];
            exchange(index_bits, stride, false, begin, in % stride, in >= stride, masks);
            exchange(index_bits, stride, true, begin, out % stride, out >= stride, masks);
            halves[out % stride] = @intCast(in % stride);
            const other_in = in ^ @as(u16, @intCast(stride));
            const other_out = targets[other_in];
            halves[stride + other_out % stride] = @intCast(other_in % stride);
            sources[out] |= taken;
            sources[other_out] |= taken;
            out = other_out ^ stride;
        }
    }
}

fn exchange(index_bits: usize, stride: usize, up: bool, begin: usize, index: usize, wanted: bool, masks: []u64) void {
    // The middle stage is one alone: nothing is left to exchange when it comes out.
    if (!wanted or (stride == 1 and up)) return;
    const bits = if (stride < chunk_bits) [_]usize{ 0, stride } else [_]usize{ 0, 0 };
    for (bits) |bit| {
        const at = place(index_bits, stride, up, begin + index) + bit;
        masks[at / 64] |= @as(u64, 1) << @truncate(at);
    }
}

test "routed networks put streams in their order" {
    var random: std.Random.DefaultPrng = .init(3);
    inline for (.{ 9, 10, 11, 12, 13 }) |index_bits| {
        const width = 1 << index_bits;
        var masks: [maskWords(index_bits)]u64 = undefined;
        var order: [width]u16 = undefined;
        for (0..4) |turn| {
            const length = if (turn == 0) width else width - random.random().uintLessThan(usize, width / 2);
            for (order[0..length], 0..) |*position, p| position.* = @intCast(if (turn == 1) length - 1 - p else p);
            if (turn != 1) random.random().shuffle(u16, order[0..length]);
            try std.testing.expect(route(order[0..length], index_bits, &masks));
            var bits: [width / chunk_bits]Chunk = undefined;
            const flat: *[width / 64]u64 = @ptrCast(&bits);
            random.random().bytes(std.mem.asBytes(&bits));
            const before = flat.*;
            network(bits.len, &bits, &masks);
            for (0..width) |p| {
                const source = if (p < length) order[p] else p;
                try std.testing.expectEqual(before[source / 64] >> @truncate(source) & 1, flat[p / 64] >> @truncate(p) & 1);
            }
        }
        order[5] = order[6];
        try std.testing.expect(!route(&order, index_bits, &masks));
        order[5] = width;
        try std.testing.expect(!route(&order, index_bits, &masks));
    }
}
