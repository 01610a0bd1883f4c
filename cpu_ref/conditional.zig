//! conditional: products whose weight generator goes on only where the input lets it.
//! Computes:  for every stream and bit t of the words word_begin .. word_end, with the places (p, q) of the stream,
//!              where bit t of inputs is 1: bit t of result = bit p of weights, p = (p + 1) % period
//!              where it is 0: 0, or of bipolar streams the complement of bit q of weights, q = (q + 1) % period
//! Layout:    inputs and result from stream first_input on, weights from stream first_weight on
//! Padding:   bits past the last one of a stream are 0 and move no place
//! Limits:    a period of at most 2^31, and places below it
//! Exactness: integer; equals shaders/conditional.wgsl bit for bit
//!
//! The next bits of a weight go to the ones of a word by one instruction where there is it (pdep).

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");

const deposits = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .bmi2);

extern fn @"llvm.x86.bmi.pdep.64"(u64, u64) callconv(.auto) u64;

/// The low bits of a word, each at the next one of a mask.
inline fn deposit(word: u64, mask: u64) u64 {
    return if (deposits) @"llvm.x86.bmi.pdep.64"(word, mask) else expand(word, mask);
}

/// The same by moves of 32, 16 .. 1 places (Warren: Hacker's Delight, section 7-5).
fn expand(word: u64, mask: u64) u64 {
    var moves: [6]u64 = undefined;
    var rest = mask;
    var zeros = ~mask << 1;
    inline for (&moves, 0..) |*move, k| {
        var parity = zeros ^ zeros << 1;
        inline for (1..6) |distance| parity ^= parity << (1 << distance);
        move.* = parity & rest;
        rest = (rest ^ move.*) | move.* >> (1 << k);
        zeros &= ~parity;
    }
    var moved = word;
    comptime var k = 6;
    inline while (k > 0) {
        k -= 1;
        moved = (moved & ~moves[k]) | (moved << (1 << k) & moves[k]);
    }
    return moved & mask;
}

/// A weight stream that repeats, and where its next bit is.
const Generator = struct {
    words: []const u64,
    period: usize,
    place: usize,

    /// 64 bits from a place on that lie before the end of the period, or what there is of them and zeros.
    inline fn bits(self: Generator, place: usize) u64 {
        const at = place >> 6;
        const inside: u6 = @truncate(place);
        const low = self.words[at] >> inside;
        if (inside == 0 or at + 1 >= self.words.len) return low;
        // A shift by 64 is not defined: in two steps none of them is.
        return low | self.words[at + 1] << 1 << (63 - inside);
    }

    /// The next bits at the ones of a mask, which they move on.
    inline fn next(self: *Generator, mask: u64) u64 {
        const found = if (self.place + 64 <= self.period) self.bits(self.place) else self.around();
        self.place += @popCount(mask);
        if (self.place >= self.period) self.place %= self.period;
        return deposit(found, mask);
    }

    /// The next 64 bits, where the period ends among them.
    fn around(self: *const Generator) u64 {
        var place = self.place;
        var found: u64 = 0;
        var count: usize = 0;
        while (count < 64) {
            found |= self.bits(place) << @intCast(count);
            count += self.period - place;
            place = 0;
        }
        return found;
    }
};

fn run(comptime bipolar: bool, call: *const abi.Conditional) void {
    const word_count: usize = call.word_count;
    const period: usize = call.period;
    const weight_words = (period + 63) / 64;
    const tail_mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(64 -% call.tail_bits);
    for (0..call.stream_count) |stream| {
        const inputs = call.inputs[(call.first_input + stream) * word_count ..][0..word_count];
        const result = call.result[(call.first_input + stream) * word_count ..][0..word_count];
        const weights = call.weights[(call.first_weight + stream) * weight_words ..][0..weight_words];
        const places = call.places[2 * stream ..][0..2];
        // A place beyond the period would be one beyond the weights.
        var ones: Generator = .{ .words = weights, .period = period, .place = places[0] % period };
        var zeros: Generator = .{ .words = weights, .period = period, .place = places[1] % period };
        for (call.word_begin..call.word_end) |word| {
            const x = inputs[word];
            var made = ones.next(x);
            if (bipolar) {
                const rest = if (word + 1 < word_count) ~x else ~x & tail_mask;
                made |= rest ^ zeros.next(rest);
            }
            result[word] = made;
        }
        places[0] = @intCast(ones.place);
        places[1] = @intCast(zeros.place);
    }
}

pub fn conditional(call: *const abi.Conditional) callconv(.c) void {
    if (call.bipolar != 0) run(true, call) else run(false, call);
}
