//! philox: Philox4x32 random words (Salmon et al., SC'11, as in Random123).
//! Computes:  words[4i ..][0..4] = philox4x32(counters[4i ..][0..4], keys[2i ..][0..2], rounds)
//! Exactness: integer; equals shaders/philox.wgsl bit for bit

const abi = @import("abi.zig");

const multiplier_0 = 0xD2511F53;
const multiplier_1 = 0xCD9E8D57;
const weyl_0 = 0x9E3779B9;
const weyl_1 = 0xBB67AE85;

/// The four output words of a block, for `lanes` counters at once.
pub fn block(
    comptime lanes: comptime_int,
    counter: [4]@Vector(lanes, u32),
    key: [2]@Vector(lanes, u32),
    rounds: u32,
) [4]@Vector(lanes, u32) {
    const Wide = @Vector(lanes, u64);
    const high: @Vector(lanes, u6) = @splat(32);
    var c = counter;
    var k = key;
    for (0..rounds) |_| {
        const product_0 = @as(Wide, c[0]) * @as(Wide, @splat(multiplier_0));
        const product_1 = @as(Wide, c[2]) * @as(Wide, @splat(multiplier_1));
        const high_0: @Vector(lanes, u32) = @truncate(product_0 >> high);
        const high_1: @Vector(lanes, u32) = @truncate(product_1 >> high);
        c = .{ high_1 ^ c[1] ^ k[0], @truncate(product_1), high_0 ^ c[3] ^ k[1], @truncate(product_0) };
        k[0] +%= @splat(weyl_0);
        k[1] +%= @splat(weyl_1);
    }
    return c;
}

pub fn philox(call: *const abi.Philox) callconv(.c) void {
    const counters = call.counters;
    const keys = call.keys;
    const words = call.words;
    const rounds = call.rounds;
    for (0..call.block_count) |i| {
        var counter: [4]@Vector(1, u32) = undefined;
        inline for (0..4) |lane| counter[lane] = @splat(counters[4 * i + lane]);
        const key = [2]@Vector(1, u32){ @splat(keys[2 * i]), @splat(keys[2 * i + 1]) };
        const out = block(1, counter, key, rounds);
        inline for (0..4) |lane| words[4 * i + lane] = out[lane][0];
    }
}
