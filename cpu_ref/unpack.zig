//! unpack: bitstream words into single bits, one to a byte.
//! Computes:  bits[s, t] = (words[first_word + s * word_count + t / 64] >> (t % 64)) & 1
//! Layout:    rows of bits lie back to back, of any length
//! Exactness: integer; equals shaders/unpack.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const Bytes = @Vector(64, u8);

/// For each byte of the result, the byte of a word that holds its bit.
fn sources() @Vector(64, i32) {
    var indices: [64]i32 = undefined;
    for (&indices, 0..) |*index, t| index.* = @intCast(t / 8);
    return indices;
}

/// For each byte of the result, its bit in that byte.
fn places() Bytes {
    var bits: [64]u8 = undefined;
    for (&bits, 0..) |*bit, t| bit.* = @as(u8, 1) << @intCast(t % 8);
    return bits;
}

/// A bit mask would say the same, but costs NEON an instruction for each bit.
inline fn spread(word: u64) Bytes {
    const copies = @shuffle(u8, @as(@Vector(8, u8), @bitCast(word)), undefined, sources());
    return @min(copies & comptime places(), @as(Bytes, @splat(1)));
}

pub fn unpack(call: *const abi.Unpack) callconv(.c) void {
    const word_count: usize = call.word_count;
    if (word_count == 0) return;
    const length: usize = 64 * word_count - 64 + call.tail_bits;
    const bits = call.bits[0 .. call.stream_count * length];
    const words = call.words + call.first_word;
    for (0..call.stream_count) |stream| {
        const row = bits[stream * length ..][0..length];
        const in = words[stream * word_count ..][0..word_count];
        const whole_words = @min(length / 64, word_count);
        for (in[0..whole_words], 0..) |word, w| row[64 * w ..][0..64].* = spread(word);
        if (whole_words < word_count) {
            const rest = row[64 * whole_words ..];
            const bytes: [64]u8 = spread(in[whole_words]);
            @memcpy(rest, bytes[0..rest.len]);
        }
    }
}

test "words are spread to bytes" {
    for ([_]u64{ 0, 1, 1 << 63, 0x0123_4567_89ab_cdef, 0xffff_ffff_ffff_ffff }) |word| {
        const bytes: [64]u8 = spread(word);
        for (bytes, 0..) |byte, t| try std.testing.expectEqual(@as(u8, @truncate(word >> @intCast(t) & 1)), byte);
    }
}
