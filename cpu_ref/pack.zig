//! pack: single bits, one to a byte, into bitstream words.
//! Computes:  bit t of stream s = bits[s, t] != 0; refused[0] = 1 where a byte is neither 0 nor 1
//! Layout:    rows of bits lie back to back, of any length; words[first_word + s * word_count + t / 64]
//! Padding:   bits past the last one of a stream are 0
//! Exactness: integer; equals shaders/pack.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const Bytes = @Vector(64, u8);

inline fn load(bytes: [*]const u8) Bytes {
    return bytes[0..64].*;
}

inline fn nonzero(bytes: Bytes) u64 {
    return @bitCast(bytes != @as(Bytes, @splat(0)));
}

/// Up to 64 bytes of which fewer may lie in memory; the rest is 0.
fn loadPart(bytes: []const u8) Bytes {
    var whole: [64]u8 = @splat(0);
    @memcpy(whole[0..bytes.len], bytes);
    return whole;
}

pub fn pack(call: *const abi.Pack) callconv(.c) void {
    const word_count: usize = call.word_count;
    if (word_count == 0) return;
    const length: usize = 64 * word_count - 64 + call.tail_bits;
    const bits = call.bits[0 .. call.stream_count * length];
    const words = call.words + call.first_word;
    var seen: Bytes = @splat(0);
    for (0..call.stream_count) |stream| {
        const row = bits[stream * length ..][0..length];
        const out = words[stream * word_count ..][0..word_count];
        const whole_words = @min(length / 64, word_count);
        for (out[0..whole_words], 0..) |*word, w| {
            const bytes = load(row.ptr + 64 * w);
            seen |= bytes;
            word.* = nonzero(bytes);
        }
        if (whole_words < word_count) {
            const rest = row[64 * whole_words ..];
            // A load that ends with the row reads bytes that were packed before: the shift drops them.
            const early = if (whole_words > 0) 64 - rest.len else 0;
            const bytes = if (whole_words > 0) load(row.ptr + length - 64) else loadPart(rest);
            seen |= bytes;
            out[whole_words] = if (early < 64) nonzero(bytes) >> @intCast(early) else 0;
        }
    }
    if (@reduce(.Or, seen) > 1) @atomicStore(u32, &call.refused[0], 1, .monotonic);
}

test "bytes of every value are packed, and those that are no bits told" {
    var bits: [2 * 130]u8 = undefined;
    for (&bits, 0..) |*bit, i| bit.* = @truncate(i / 3 % 2);
    var words: [7]u64 = @splat(0xaaaa);
    var refused = [_]u32{0};
    var call: abi.Pack = .{
        .stream_count = 2,
        .word_count = 3,
        .tail_bits = 2,
        .first_word = 1,
        .bits = &bits,
        .bits_len = bits.len,
        .words = &words,
        .words_len = words.len,
        .refused = &refused,
        .refused_len = 1,
    };
    pack(&call);
    try std.testing.expectEqual(0, refused[0]);
    try std.testing.expectEqual(0xaaaa, words[0]);
    for (0..2) |stream| {
        for (0..3 * 64) |t| {
            const expected = if (t < 130) bits[stream * 130 + t] else 0;
            try std.testing.expectEqual(expected, words[1 + stream * 3 + t / 64] >> @truncate(t) & 1);
        }
    }
    bits[259] = 2;
    pack(&call);
    try std.testing.expectEqual(1, refused[0]);
    try std.testing.expectEqual(1, words[6] >> 1 & 1);
}
