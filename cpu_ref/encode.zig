//! encode: Bernoulli bitstreams from thresholds (stochastic number generator).
//! Computes:  bit t of stream s in sample b = U < thresholds[b, s], U from philox(counter(b, s, t), key)
//! Layout:    words[b, s, w]; bit t of a stream is (word[t / 64] >> (t % 64)) & 1
//! Padding:   bits past the last one of a stream are 0
//! Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
//! Exactness: integer; equals shaders/encode.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const philox = @import("philox.zig");

const lanes = philox.lanes;
const Lanes = philox.Lanes;
const Halves = @Vector(2 * lanes, u32);
const rounds = 10;
const always = 0xffff_ffff;

/// Vectors of 64-bit words that are encoded together, their generators interleaved.
const group = 2;
const group_words = group * lanes;

/// Where a word of the output lies: neighbouring words may belong to different streams.
const Place = struct {
    word: [group_words]u64 = @splat(0),
    stream: [group_words]u64 = @splat(0),
    sample: [group_words]u64 = @splat(0),
    threshold: [group_words]u64 = @splat(0),

    fn vector(values: *const [group_words]u64, g: usize) Lanes {
        return values[g * lanes ..][0..lanes].*;
    }
};

/// The lower halves of `even` and of `odd`, interleaved: 32-bit words 2w and 2w + 1.
inline fn joined(even: Lanes, odd: Lanes) Lanes {
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

/// Words of one group: every bit walks its threshold from the top, all together, until every
/// one is decided. Draws are addressed by the counter, so stopping early changes no bit.
inline fn walk(place: *const Place, key: [2]Lanes, domain: u32) [group_words]u64 {
    var ones: [group]Lanes = @splat(@splat(0));
    var undecided: [group]Lanes = @splat(@splat(0xffff_ffff_ffff_ffff));
    // Bit k of a threshold, counted from the top, is the sign of both halves after k shifts.
    var rest: [group]Halves = undefined;
    var base: [group]Lanes = undefined;
    inline for (0..group) |g| {
        const threshold = Place.vector(&place.threshold, g);
        rest[g] = @bitCast(joined(threshold, threshold));
        base[g] = Place.vector(&place.word, g) << @splat(4);
    }
    const shift: @Vector(2 * lanes, u5) = @splat(31);
    const step: @Vector(2 * lanes, u5) = @splat(1);
    for (0..8) |b| {
        var chains: [2 * group][4]Lanes = undefined;
        inline for (0..2 * group) |i| {
            const g = i / 2;
            const first = @as(Lanes, @splat(b + 8 * (i % 2)));
            const stream = Place.vector(&place.stream, g);
            chains[i] = .{ base[g] + first, stream, Place.vector(&place.sample, g), @splat(domain) };
        }
        philox.blocks(2 * group, &chains, key, rounds);
        var open: u64 = 0;
        inline for (0..group) |g| {
            inline for (0..4) |k| {
                const draw = joined(chains[2 * g][k], chains[2 * g + 1][k]);
                const signed: @Vector(2 * lanes, i32) = @bitCast(rest[g]);
                const bit: Lanes = @bitCast(signed >> shift);
                ones[g] |= undecided[g] & ~draw & bit;
                undecided[g] &= ~(draw ^ bit);
                rest[g] <<= step;
            }
            const left: Lanes = @bitCast(@select(u32, rest[g] != @as(Halves, @splat(0)), @as(Halves, @splat(always)), @as(Halves, @splat(0))));
            open |= @reduce(.Or, undecided[g] & left);
        }
        if (open == 0) break;
    }
    var words: [group_words]u64 = undefined;
    inline for (0..group) |g| words[g * lanes ..][0..lanes].* = ones[g];
    return words;
}

pub fn encode(call: *const abi.Encode) callconv(.c) void {
    const word_count: usize = call.word_count;
    const stream_count: usize = call.stream_count;
    const first_sample = call.first_sample;
    const first_stream = call.first_stream;
    const rows = stream_count * call.sample_count;
    const thresholds = call.thresholds[call.threshold_offset..][0..rows];
    const words = call.words[0 .. rows * word_count];
    const key = [2]Lanes{ @splat(call.key_lo), @splat(call.key_hi) };
    const domain = call.domain;

    var place: Place = .{};
    var position: usize = 0;
    var row: usize = 0;
    var word: usize = 0;
    var stream: usize = 0;
    var sample: usize = 0;
    while (position < words.len) : (position += group_words) {
        const filled: usize = @min(group_words, words.len - position);
        for (0..filled) |i| {
            place.word[i] = word;
            place.stream[i] = first_stream +% stream;
            place.sample[i] = first_sample +% sample;
            place.threshold[i] = thresholds[row];
            word += 1;
            if (word == word_count) {
                word = 0;
                row += 1;
                stream += 1;
                if (stream == stream_count) {
                    stream = 0;
                    sample += 1;
                }
            }
        }
        const made = walk(&place, key, domain);
        for (words[position..][0..filled], made[0..filled]) |*out, bits| out.* = bits;
    }
    const tail_mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(64 -% call.tail_bits);
    for (thresholds, 0..) |threshold, index| {
        const stream_words = words[index * word_count ..][0..word_count];
        if (threshold == always) @memset(stream_words, 0xffff_ffff_ffff_ffff);
        stream_words[word_count - 1] &= tail_mask;
    }
}
