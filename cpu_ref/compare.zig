//! compare: bitstreams from thresholds and sequences of numbers that lie in memory.
//! Computes:  bit t of stream s in sample b = sequences[q][(phase + t) % period] < thresholds[b, s],
//!            with the place (q, phase) of stream s at places[2 * s * place_stride]
//! Padding:   bits past the last one of a stream are 0
//! Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
//! Exactness: integer; equals shaders/compare.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const lanes = 16;
const Numbers = @Vector(lanes, u32);
const always = 0xffff_ffff;

/// Words of every stream made together: their numbers stay in the first-level cache, where
/// streams share a sequence.
const chunk_words = 64;

inline fn below(numbers: *const [64]u32, threshold: u32) u64 {
    var word: u64 = 0;
    inline for (0..64 / lanes) |i| {
        const part: Numbers = numbers[i * lanes ..][0..lanes].*;
        const bits: u16 = @bitCast(part < @as(Numbers, @splat(threshold)));
        word |= @as(u64, bits) << (i * lanes);
    }
    return word;
}

fn fill(words: []u64, sequence: []const u32, first: usize, threshold: u32) void {
    var place = first;
    for (words) |*word| {
        if (place + 64 <= sequence.len) {
            word.* = below(sequence[place..][0..64], threshold);
            place += 64;
            if (place == sequence.len) place = 0;
        } else {
            var numbers: [64]u32 = undefined;
            var count: usize = 0;
            while (count < 64) {
                const some: usize = @min(64 - count, sequence.len - place);
                @memcpy(numbers[count..][0..some], sequence[place..][0..some]);
                count += some;
                place += some;
                if (place == sequence.len) place = 0;
            }
            word.* = below(&numbers, threshold);
        }
    }
}

pub fn compare(call: *const abi.Compare) callconv(.c) void {
    const word_count: usize = call.word_count;
    const stream_count: usize = call.stream_count;
    const place_stride: usize = call.place_stride;
    const period: usize = call.period;
    const row_count = stream_count * call.sample_count;
    const thresholds = call.thresholds + call.threshold_offset;
    const places = call.places;
    const sequences = call.sequences;
    const words = call.words;
    var first_word: usize = 0;
    while (first_word < word_count) : (first_word += chunk_words) {
        const width: usize = @min(chunk_words, word_count - first_word);
        const skipped = first_word * 64 % period;
        var stream: usize = 0;
        for (0..row_count) |row| {
            const place = places[2 * stream * place_stride ..];
            const sequence = sequences[place[0] * period ..][0..period];
            const first = (skipped + place[1]) % period;
            const threshold = thresholds[row];
            const out = words[row * word_count + first_word ..][0..width];
            if (threshold == 0 or threshold == always) {
                @memset(out, if (threshold == 0) 0 else std.math.maxInt(u64));
            } else fill(out, sequence, first, threshold);
            stream += 1;
            if (stream == stream_count) stream = 0;
        }
    }
    if (call.tail_bits == 64 or word_count == 0) return;
    const tail_mask = @as(u64, std.math.maxInt(u64)) >> @truncate(64 -% call.tail_bits);
    for (0..row_count) |row| words[row * word_count + word_count - 1] &= tail_mask;
}

test "a sequence that wraps in every way within and between words" {
    var random: std.Random.DefaultPrng = .init(1);
    for ([_]usize{ 1, 2, 3, 31, 63, 64, 65, 100, 128, 1000 }) |period| {
        var sequence: [1000]u32 = undefined;
        for (sequence[0..period]) |*number| number.* = random.random().int(u32);
        const first = random.random().uintLessThan(usize, period);
        const threshold = sequence[first];
        var words: [5]u64 = undefined;
        fill(&words, sequence[0..period], first, threshold);
        for (0..64 * words.len) |t| {
            const less = sequence[(first + t) % period] < threshold;
            try std.testing.expectEqual(@intFromBool(less), words[t / 64] >> @truncate(t) & 1);
        }
    }
}
