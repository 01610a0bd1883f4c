//! accumulate: the carries of accumulators that bitstreams are added to.
//! Computes:  for every stream and bit t of the words word_begin .. word_end, with the number held of the stream,
//!              held = cut(held + (ones of all inputs at t << shift) - offset) to -limit .. limit
//!              bit t of result = held >= scale, in which case held = held - scale
//! Layout:    inputs[k * input_stride + stream, word]; result from word first_word on
//! Padding:   bits past the last one of a stream are 0 and change no number
//! Limits:    2^15 inputs, a shift of 0 or 1, and a limit of 2^30, so that 32 bits hold every sum
//! Exactness: integer; equals shaders/accumulate.wgsl bit for bit
//!
//! A lane of a vector is a stream. Ones at one time are counted in a field of a number, `field` numbers
//! of 32 bits for all times of half a word; three inputs become two by a full adder before that.

const std = @import("std");
const abi = @import("abi.zig");

/// Four vectors: a number depends on the one before, and others fill the time.
const lanes = 4 * (std.simd.suggestVectorLength(u32) orelse 4);
const Counts = @Vector(lanes, u32);
const Held = @Vector(lanes, i32);
/// Words of a stream that are counted together: a cache line of each.
const block_words = 8;

/// What a call does at every bit, in all lanes.
const Rule = struct {
    shift: u5,
    offset: Held,
    scale: Held,
    limit: Held,

    /// Add so many ones; `mark` where the lane gives off a carry.
    inline fn step(rule: Rule, held: *Held, ones: Counts, mark: u32) Counts {
        const added: Held = @bitCast(ones << @splat(rule.shift));
        const sum = @min(@max(held.* + added - rule.offset, -rule.limit), rule.limit);
        const full = sum >= rule.scale;
        held.* = @select(i32, full, sum - rule.scale, sum);
        return @select(u32, full, @as(Counts, @splat(mark)), @as(Counts, @splat(0)));
    }
};

/// Streams side by side, with their ones counted in fields of so many bits.
fn Tally(comptime field: u5) type {
    return struct {
        const mask: Counts = @splat(@as(u32, 0xffff_ffff) / ((1 << field) - 1));
        /// Ones at the times of half a word: bit t is field t / field of number t % field.
        const Half = [field]Counts;
        /// Low and high halves of the same word of all streams.
        const Word = [2]Counts;

        /// `count` streams, at most `lanes`, by all words of the call.
        fn run(call: *const abi.Accumulate, first: usize, count: usize) void {
            const word_count: usize = call.word_count;
            const result = call.result + call.first_word + first * word_count;
            const rule: Rule = .{
                .shift = @intCast(call.shift),
                .offset = @splat(@intCast(call.offset)),
                .scale = @splat(@intCast(call.scale)),
                .limit = @splat(@intCast(call.limit)),
            };
            var held: [lanes]i32 = @splat(0);
            @memcpy(held[0..count], call.numbers[first..][0..count]);
            var now: Held = held;
            var begin: usize = call.word_begin;
            while (begin < call.word_end) : (begin += block_words) {
                const words: usize = @min(block_words, call.word_end - begin);
                const halves = ones(call, first, count, begin, words);
                for (begin..begin + words, halves[0..words]) |word, *half| {
                    const bits = if (word + 1 < word_count) 64 else call.tail_bits;
                    const low: [lanes]u32 = carries(rule, &now, &half[0], @min(bits, 32));
                    const high: [lanes]u32 = carries(rule, &now, &half[1], bits -| 32);
                    for (0..count) |lane| result[lane * word_count + word] = low[lane] | @as(u64, high[lane]) << 32;
                }
            }
            held = now;
            @memcpy(call.numbers[first..][0..count], held[0..count]);
        }

        /// Ones at every time of some words.
        fn ones(call: *const abi.Accumulate, first: usize, count: usize, word: usize, words: usize) [block_words][2]Half {
            const word_count: usize = call.word_count;
            var halves: [block_words][2]Half = @splat(@splat(@splat(@splat(0))));
            var input: usize = 0;
            while (input < call.input_count) : (input += 3) {
                var sets: [3][block_words]Word = undefined;
                inline for (&sets, 0..) |*set, k| {
                    if (input + k < call.input_count) {
                        const stream = (input + k) * call.input_stride + first;
                        set.* = transposed(call.inputs[stream * word_count + word ..], word_count, count, words);
                    } else set.* = @splat(@splat(@splat(0)));
                }
                for (halves[0..words], 0..) |*half, w| {
                    inline for (half, 0..) |*numbers, h| {
                        const a, const b, const c = .{ sets[0][w][h], sets[1][w][h], sets[2][w][h] };
                        const sum = a ^ b ^ c;
                        const carry = (a & b) | (c & (a ^ b));
                        inline for (numbers, 0..) |*number, t| {
                            const single = (sum >> @splat(t)) & mask;
                            const double = (carry >> @splat(t)) & mask;
                            number.* += single + double + double;
                        }
                    }
                }
            }
            return halves;
        }

        /// Words of streams one after the other as lanes; those without a stream repeat the last one.
        inline fn transposed(rows: [*]const u64, word_count: usize, count: usize, words: usize) [block_words]Word {
            var columns: [block_words][2 * lanes]u32 = undefined;
            for (0..lanes) |lane| {
                const row = rows + @min(lane, count - 1) * word_count;
                for (row[0..words], columns[0..words]) |bits, *column| column[2 * lane ..][0..2].* = @bitCast(bits);
            }
            var made: [block_words]Word = undefined;
            for (columns[0..words], made[0..words]) |column, *word| {
                const pairs: @Vector(2 * lanes, u32) = column;
                word.* = std.simd.deinterlace(2, pairs);
            }
            return made;
        }

        /// The carries of the first `bits` times of half a word.
        inline fn carries(rule: Rule, held: *Held, half: *const Half, bits: u32) Counts {
            const lowest: Counts = @splat((1 << field) - 1);
            var made: Counts = @splat(0);
            if (bits == 32) {
                inline for (0..32) |t| {
                    const found = (half[t % field] >> @splat(t / field * field)) & lowest;
                    made |= rule.step(held, found, 1 << t);
                }
            } else for (0..bits) |t| {
                const found = (half[t % field] >> @splat(@intCast(t / field * field))) & lowest;
                made |= rule.step(held, found, @as(u32, 1) << @intCast(t));
            }
            return made;
        }
    };
}

pub fn accumulate(call: *const abi.Accumulate) callconv(.c) void {
    const stream_count: usize = call.stream_count;
    var first: usize = 0;
    while (first < stream_count) : (first += lanes) {
        const count: usize = @min(lanes, stream_count - first);
        if (call.input_count < 256) Tally(8).run(call, first, count) else Tally(16).run(call, first, count);
    }
}
