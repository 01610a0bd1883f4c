//! encode: Bernoulli bitstreams from thresholds (stochastic number generator).
//! Computes:  bit t of stream s in sample b = U < thresholds[b, s], U from philox(counter(b, s, t), key)
//! Layout:    words[b, s, w]; bit t of a stream is (word[t / 64] >> (t % 64)) & 1
//! Padding:   bits past the last one of a stream are 0
//! Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
//! Exactness: integer; equals shaders/encode.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const philox = @import("philox.zig");

const lanes = @max(4, std.simd.suggestVectorLength(u32) orelse 4);
const Lanes = @Vector(lanes, u32);
const rounds = 10;

/// 32-bit words `first` .. `first + lanes` of one stream: all lanes walk the threshold's
/// bits from the top together and stop when every lane is decided. Draws are addressed by
/// the counter, so stopping early changes no bit.
fn walk(threshold: u32, first: u32, stream: u32, sample: u32, domain: u32, key: [2]Lanes) Lanes {
    const word_index = @as(Lanes, @splat(first)) +% std.simd.iota(u32, lanes);
    const block_base = word_index *% @as(Lanes, @splat(8));
    var ones: Lanes = @splat(0);
    var undecided: Lanes = @splat(0xffff_ffff);
    var rest = threshold;
    for (0..8) |b| {
        const counter = [4]Lanes{
            block_base +% @as(Lanes, @splat(@intCast(b))),
            @splat(stream),
            @splat(sample),
            @splat(domain),
        };
        const draws = philox.block(lanes, counter, key, rounds);
        inline for (0..4) |k| {
            if (rest >> 31 != 0) {
                ones |= undecided & ~draws[k];
                undecided &= draws[k];
            } else {
                undecided &= ~draws[k];
            }
            rest <<= 1;
        }
        if (rest == 0 or @reduce(.Or, undecided) == 0) break;
    }
    return ones;
}

pub fn encode(call: *const abi.Encode) callconv(.c) void {
    const word_count: usize = call.word_count;
    const tail_mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(64 -% call.tail_bits);
    const key = [2]Lanes{ @splat(call.key_lo), @splat(call.key_hi) };
    const domain = call.domain;
    const stream_count: usize = call.stream_count;
    for (0..call.sample_count) |sample| {
        const thresholds = call.thresholds[call.threshold_offset + sample * stream_count ..][0..stream_count];
        for (thresholds, 0..) |threshold, stream| {
            const words = call.words[(sample * stream_count + stream) * word_count ..][0..word_count];
            switch (threshold) {
                0 => @memset(words, 0),
                0xffff_ffff => @memset(words, 0xffff_ffff_ffff_ffff),
                else => {
                    var w: usize = 0;
                    while (w < word_count) : (w += lanes / 2) {
                        const ones: [lanes]u32 = walk(
                            threshold,
                            @intCast(2 * w),
                            @intCast(stream),
                            call.first_sample +% @as(u32, @intCast(sample)),
                            domain,
                            key,
                        );
                        const filled: usize = @min(lanes / 2, word_count - w);
                        for (words[w..][0..filled], 0..) |*word, i| {
                            word.* = @as(u64, ones[2 * i]) | @as(u64, ones[2 * i + 1]) << 32;
                        }
                    }
                },
            }
            words[word_count - 1] &= tail_mask;
        }
    }
}
