//! delay: each stream later by 64 * word_shift + bit_shift bits, zeros before it.
//! Padding:   what passes the last bit of a stream is cut off
//! Exactness: integer; equals shaders/delay.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

pub fn delay(call: *const abi.Delay) callconv(.c) void {
    const word_count: usize = call.word_count;
    if (word_count == 0) return;
    const tail_mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(64 -% call.tail_bits);
    for (0..call.stream_count) |stream| {
        const words = call.words[stream * word_count ..][0..word_count];
        const result = call.result[stream * word_count ..][0..word_count];
        shifted(words, result, call.word_shift, @truncate(call.bit_shift));
        result[word_count - 1] &= tail_mask;
    }
}

fn shifted(words: []const u64, result: []u64, word_shift: usize, bit_shift: u6) void {
    if (word_shift >= words.len) {
        @memset(result, 0);
        return;
    }
    @memset(result[0..word_shift], 0);
    result[word_shift] = words[0] << bit_shift;
    const rest = words.len - word_shift - 1;
    // A shift by 64 is not defined: in two steps none of them is.
    for (words[0..rest], words[1..][0..rest], result[word_shift + 1 ..]) |before, here, *r| {
        r.* = here << bit_shift | before >> 1 >> (63 - bit_shift);
    }
}

test "every shift of some words, bit by bit" {
    const words = [_]u64{ 0x8000_0000_0000_0001, 0x0123_4567_89ab_cdef, 0xffff_0000_ffff_0001 };
    for (0..words.len + 2) |word_shift| {
        for (0..64) |bit_shift| {
            var result: [words.len]u64 = undefined;
            shifted(&words, &result, word_shift, @intCast(bit_shift));
            const shift = 64 * word_shift + bit_shift;
            for (0..64 * words.len) |t| {
                const source = t -% shift;
                const expected = if (t < shift) 0 else words[source / 64] >> @truncate(source) & 1;
                try std.testing.expectEqual(expected, result[t / 64] >> @truncate(t) & 1);
            }
        }
    }
}
