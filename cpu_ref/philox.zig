//! philox: Philox4x32 random words (Salmon et al., SC'11, as in Random123).
//! Computes:  words[4i ..][0..4] = philox4x32(counters[4i ..][0..4], keys[2i ..][0..2], rounds)
//! Exactness: integer; equals shaders/philox.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

pub const multiplier_0 = 0xD2511F53;
pub const multiplier_1 = 0xCD9E8D57;
const weyl_0 = 0x9E3779B9;
const weyl_1 = 0xBB67AE85;

pub const lanes = std.simd.suggestVectorLength(u64) orelse 2;

/// 32-bit values in 64-bit lanes: a lane's upper half holds anything. The multiplications
/// read the lower halves alone, and are the one instruction that widens.
pub const Lanes = @Vector(lanes, u64);

/// Their halves, the lower one first.
pub const Halves = @Vector(2 * lanes, u32);

pub const low: Lanes = @splat(0xffff_ffff);
const half: @Vector(lanes, u6) = @splat(32);

/// Keys of the rounds 0 .. count of one seed.
pub fn schedule(comptime count: usize, key_lo: u32, key_hi: u32) [count][2]u64 {
    var keys: [count][2]u64 = undefined;
    var k: [2]u32 = .{ key_lo, key_hi };
    for (&keys) |*key| {
        key.* = .{ k[0], k[1] };
        k[0] +%= weyl_0;
        k[1] +%= weyl_1;
    }
    return keys;
}

/// One round of blocks; `chains` independent ones hide each other's latency.
pub inline fn round(comptime chains: usize, c: *[chains][4]Lanes, key: [2]Lanes) void {
    inline for (0..chains) |i| {
        const product_0 = (c[i][0] & low) * @as(Lanes, @splat(multiplier_0));
        const product_1 = (c[i][2] & low) * @as(Lanes, @splat(multiplier_1));
        c[i] = .{
            (product_1 >> half) ^ c[i][1] ^ key[0],
            product_1,
            (product_0 >> half) ^ c[i][3] ^ key[1],
            product_0,
        };
    }
}

/// The lower halves of `even` and of `odd`, interleaved: 32-bit words 2w and 2w + 1.
pub inline fn joined(even: Lanes, odd: Lanes) Lanes {
    const pattern = comptime pattern: {
        var indices: [2 * lanes]i32 = undefined;
        for (0..lanes) |i| {
            indices[2 * i] = 2 * i;
            indices[2 * i + 1] = ~@as(i32, 2 * i);
        }
        break :pattern indices;
    };
    return @bitCast(@shuffle(u32, @as(Halves, @bitCast(even)), @as(Halves, @bitCast(odd)), pattern));
}

pub fn philox(call: *const abi.Philox) callconv(.c) void {
    const counters = call.counters;
    const keys = call.keys;
    const words = call.words;
    const block_count: usize = call.block_count;
    const rounds = call.rounds;
    var first: usize = 0;
    while (first < block_count) : (first += lanes) {
        const filled: usize = @min(lanes, block_count - first);
        var counter: [4][lanes]u64 = @splat(@splat(0));
        var key: [2][lanes]u64 = @splat(@splat(0));
        for (0..filled) |lane| {
            inline for (0..4) |word| counter[word][lane] = counters[4 * (first + lane) + word];
            inline for (0..2) |word| key[word][lane] = keys[2 * (first + lane) + word];
        }
        var chain: [1][4]Lanes = .{.{ counter[0], counter[1], counter[2], counter[3] }};
        var k: [2]Lanes = .{ key[0], key[1] };
        for (0..rounds) |_| {
            round(1, &chain, k);
            k[0] +%= @splat(weyl_0);
            k[1] +%= @splat(weyl_1);
        }
        inline for (0..4) |word| counter[word] = chain[0][word];
        for (0..filled) |lane| {
            inline for (0..4) |word| words[4 * (first + lane) + word] = @truncate(counter[word][lane]);
        }
    }
}

fn one(counter: [4]u32, key: [2]u32) [4]u32 {
    var words: [4]u32 = undefined;
    philox(&.{
        .block_count = 1,
        .rounds = 10,
        .counters = &counter,
        .counters_len = 4,
        .keys = &key,
        .keys_len = 2,
        .words = &words,
        .words_len = 4,
    });
    return words;
}

test "known answers of Random123" {
    const all = 0xffff_ffff;
    try std.testing.expectEqual([4]u32{ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, one(@splat(0), @splat(0)));
    try std.testing.expectEqual([4]u32{ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd }, one(@splat(all), @splat(all)));
    try std.testing.expectEqual(
        [4]u32{ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
        one(.{ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, .{ 0xa4093822, 0x299f31d0 }),
    );
}

test "halves of two vectors are joined in order" {
    const even = std.simd.iota(u64, lanes) * @as(Lanes, @splat(2)) + @as(Lanes, @splat(7 << 32));
    const odd = even + @as(Lanes, @splat(1));
    const words: [2 * lanes]u32 = @bitCast(joined(even, odd));
    for (words, 0..) |word, i| try std.testing.expectEqual(@as(u32, @intCast(i)), word);
}
