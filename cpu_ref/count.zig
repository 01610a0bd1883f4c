//! count: ones of each bitstream, by segments whose counts fit 32 bits.
//! Computes:  counts[s, g] = popcount(words[s, g * segment_words .. (g + 1) * segment_words])
//! Exactness: integer; equals shaders/count.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const popcount = @import("popcount.zig");

pub fn count(call: *const abi.Count) callconv(.c) void {
    const word_count: usize = call.word_count;
    const segment_words: usize = call.segment_words;
    const segment_count: usize = call.segment_count;
    const counts = call.counts;
    for (0..call.stream_count) |stream| {
        const words = call.words[stream * word_count ..][0..word_count];
        for (0..segment_count) |segment| {
            const begin: usize = @min(segment * segment_words, word_count);
            const end: usize = @min(begin + segment_words, word_count);
            counts[stream * segment_count + segment] = popcount.count(words[begin..end]);
        }
    }
}

test "segments that end with the stream, before it and after it" {
    const words = [_]u64{ 1, 3, 7, 15, 31, 0xffff_ffff_ffff_ffff };
    var counts: [4]u32 = undefined;
    count(&.{
        .stream_count = 2,
        .word_count = 3,
        .segment_words = 2,
        .segment_count = 2,
        .words = &words,
        .words_len = words.len,
        .counts = &counts,
        .counts_len = counts.len,
    });
    try std.testing.expectEqual([_]u32{ 3, 3, 9, 64 }, counts);
}
