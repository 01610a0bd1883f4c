//! encode: Bernoulli bitstreams from thresholds (stochastic number generator).
//! Computes:  bit t of stream s in sample b = U < thresholds[b, s], U from philox(counter(b, s, t), key)
//! Layout:    words[b, s, w] is word first_word + w of the stream; its bit t is (word[t / 64] >> (t % 64)) & 1
//! Padding:   bits past the last one of a stream are 0
//! Edges:     threshold 0: all zeros; threshold 0xffffffff: all ones
//! Stages:    the first 8 draws decide all but 1/256 of the bits, and every word of 32 bits takes
//!            them; the one word in 8 that has an undecided bit then goes through a queue, where
//!            words of any streams share vectors, until it has none. Draws are addressed by the
//!            counter, so neither stopping early nor the order changes a bit
//! Exactness: integer; equals shaders/encode.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const philox = @import("philox.zig");

const lanes = philox.lanes;
const Lanes = philox.Lanes;
const Halves = philox.Halves;
const rounds = 10;
const always = 0xffff_ffff;
const all_ones: u64 = 0xffff_ffff_ffff_ffff;

/// Blocks of 4 draws in the first stage.
const first_blocks = 2;
const first_draws = 4 * first_blocks;

/// Words of 64 bits that pass the first stage together; their parts of a state stay in the
/// first-level cache.
const chunk_words = 128;

inline fn load(array: []const u64, index: usize) Lanes {
    return array[index..][0..lanes].*;
}

/// Compare draws, the most significant first, with as many bits of thresholds.
const Compared = struct {
    /// The draws are below the bits.
    less: Lanes,
    /// The draws are the bits: the rest decides.
    equal: Lanes,

    inline fn of(comptime count: usize, draws: [count]Lanes, bits: [count]Lanes) Compared {
        var result: Compared = .{ .less = @splat(0), .equal = @splat(all_ones) };
        inline for (0..count) |i| {
            const k = count - 1 - i;
            const differ = draws[k] ^ bits[k];
            result.less = (differ & bits[k]) | (~differ & result.less);
            result.equal &= ~differ;
        }
        return result;
    }
};

/// The part of a block's state after two rounds that depends on the place in the stream. The
/// counter (8 j + b, stream, sample, domain) reaches every word of the state in the third round
/// only: until then the state is the exclusive or of this part and a `Stream`'s.
const Places = struct {
    /// By draw block, half of the word, and word; the words of a stream repeat after the last.
    parts: [first_blocks][2][3][chunk_words + lanes]u64,

    fn fill(places: *Places, first_word: usize, period: usize, straddling: bool, domain: u32, keys: *const [rounds][2]u64) void {
        for (0..first_blocks) |b| {
            for (0..2) |half| {
                const parts = &places.parts[b][half];
                var word: usize = 0;
                while (word < period) : (word += lanes) {
                    const words = std.simd.iota(u64, lanes) + @as(Lanes, @splat(first_word + word));
                    const c0 = words * @as(Lanes, @splat(16)) + @as(Lanes, @splat(8 * half + b));
                    // c1 and c2 of the counter are the stream's part.
                    var state = [1][4]Lanes{.{ c0, @splat(0), @splat(0), @splat(domain) }};
                    philox.round(1, &state, .{ @splat(0), @splat(keys[0][1]) });
                    parts[2][word..][0..lanes].* = state[0][3] ^ @as(Lanes, @splat(keys[1][1]));
                    philox.round(1, &state, .{ @splat(0), @splat(0) });
                    parts[0][word..][0..lanes].* = state[0][0];
                    parts[1][word..][0..lanes].* = state[0][1] ^ @as(Lanes, @splat(keys[2][0]));
                }
                if (straddling) for (parts) |*part| {
                    for (period..period + lanes) |w| part[w] = part[w - period];
                };
            }
        }
    }
};

/// A stream of a chunk: the other part of the state after two rounds, and the threshold.
const Stream = struct {
    row: usize,
    index: u32,
    sample: u32,
    threshold: u32,
    parts: [3]u64,
    /// The first bits of the threshold, the most significant first: all ones or all zeros.
    bits: [first_draws]u64,

    inline fn of(row: usize, index: u32, sample: u32, threshold: u32, keys: *const [rounds][2]u64) Stream {
        const product_1 = @as(u64, sample) * philox.multiplier_1;
        const c0: u32 = @truncate((product_1 >> 32) ^ index ^ keys[0][0]);
        const product_0 = @as(u64, c0) * philox.multiplier_0;
        const Bits = @Vector(first_draws, i32);
        const tops: Bits = @bitCast(@as(@Vector(first_draws, u32), @splat(threshold)) << std.simd.iota(u5, first_draws));
        return .{
            .row = row,
            .index = index,
            .sample = sample,
            .threshold = threshold,
            .parts = .{ product_1 ^ keys[1][0], product_0 >> 32, product_0 ^ keys[2][1] },
            .bits = @bitCast(@as(@Vector(first_draws, i64), tops >> @splat(31))),
        };
    }
};

/// What belongs to the stream of each word, where vectors straddle streams.
const Words = struct {
    parts: [3][chunk_words + lanes]u64 align(64),
    /// The threshold, twice.
    threshold: [chunk_words + lanes]u64 align(64),

    fn add(words: *Words, first: usize, width: usize, stream: *const Stream) void {
        switch (width) {
            1 => words.fill(1, first, width, stream),
            2 => words.fill(2, first, width, stream),
            else => words.fill(lanes, first, width, stream),
        }
    }

    /// What is written past the stream's words is overwritten by the next stream, or read by nobody.
    inline fn fill(words: *Words, comptime step: usize, first: usize, width: usize, stream: *const Stream) void {
        var begin = first;
        while (begin < first + width) : (begin += step) {
            inline for (0..3) |i| words.parts[i][begin..][0..step].* = @splat(stream.parts[i]);
            words.threshold[begin..][0..step].* = @splat(@as(u64, stream.threshold) << 32 | stream.threshold);
        }
    }
};

/// 32-bit words that some draws have not decided.
const Queue = struct {
    const batch_chains = 4;
    const batch = batch_chains * lanes;
    const capacity = 2 * chunk_words + 2 * batch;

    /// Words that wait.
    count: usize = 0,
    /// Where in the output, counted in 32-bit words.
    place: [capacity]u64 = undefined,
    counter: [3][capacity]u32 = undefined,
    /// Bits of the threshold that are not compared yet, the next one at the top.
    rest: [capacity]u32 = undefined,
    undecided: [capacity]u32 = undefined,

    /// Compare the next block of draws for the last `filled` words, at most a batch.
    fn advance(queue: *Queue, filled: usize, words: [*]u32, domain: u32, keys: *const [rounds][2]u64) void {
        const first = queue.count - filled;
        var chains: [batch_chains][4]Lanes = undefined;
        inline for (0..batch_chains) |i| {
            const begin = first + i * lanes;
            inline for (0..3) |word| {
                chains[i][word] = @as(@Vector(lanes, u32), queue.counter[word][begin..][0..lanes].*);
            }
            chains[i][3] = @splat(domain);
        }
        inline for (0..rounds) |r| philox.round(batch_chains, &chains, .{ @splat(keys[r][0]), @splat(keys[r][1]) });
        var less: [batch]u32 = undefined;
        var equal: [batch]u32 = undefined;
        inline for (0..batch_chains) |i| {
            const rest: Lanes = @as(@Vector(lanes, u32), queue.rest[first + i * lanes ..][0..lanes].*);
            var bits: [4]Lanes = undefined;
            inline for (0..4) |k| bits[k] = @as(Lanes, @splat(0)) -% (rest >> @splat(31 - k) & @as(Lanes, @splat(1)));
            const compared: Compared = .of(4, chains[i], bits);
            less[i * lanes ..][0..lanes].* = @as(@Vector(lanes, u32), @truncate(compared.less));
            equal[i * lanes ..][0..lanes].* = @as(@Vector(lanes, u32), @truncate(compared.equal));
        }
        queue.count = first;
        for (0..filled) |i| {
            const from = first + i;
            const undecided = queue.undecided[from];
            words[queue.place[from]] |= less[i] & undecided;
            const rest = queue.rest[from] << 4;
            if (equal[i] & undecided == 0 or rest == 0) continue;
            const to = queue.count;
            queue.place[to] = queue.place[from];
            inline for (0..3) |word| queue.counter[word][to] = queue.counter[word][from];
            queue.counter[0][to] += 1;
            queue.rest[to] = rest;
            queue.undecided[to] = equal[i] & undecided;
            queue.count += 1;
        }
    }
};

/// The words first_word .. first_word + width of every row of the output.
const Tile = struct {
    call: *const abi.Encode,
    keys: *const [rounds][2]u64,
    queue: *Queue,
    first_word: usize,
    width: usize,
    /// Words of a chunk from one stream to the next: `width`, or more where no vector straddles streams.
    period: usize,
    places: Places = undefined,
    words: Words = undefined,
    streams: [chunk_words]Stream = undefined,
    /// Stream in the chunk, and word in the tile, of each word of a chunk.
    stream_of: [chunk_words]u8 = undefined,
    word_of: [chunk_words]u8 = undefined,
    ones: [chunk_words]u64 = undefined,
    undecided: [chunk_words]u64 = undefined,
    /// A bit for each 32-bit word of the chunk that has an undecided bit.
    open: [2 * chunk_words / 64]u64 = undefined,

    fn run(tile: *Tile, comptime straddling: bool) void {
        const call = tile.call;
        const stream_count: usize = call.stream_count;
        const row_count = stream_count * call.sample_count;
        const thresholds = call.thresholds[call.threshold_offset..][0..row_count];
        const most = chunk_words / tile.period;
        tile.places.fill(call.first_word + tile.first_word, tile.period, straddling, call.domain, tile.keys);
        tile.number(@min(chunk_words, row_count * tile.period));
        var row: usize = 0;
        var index: usize = 0;
        var sample: u32 = call.first_sample;
        while (row < row_count) {
            var count: usize = 0;
            var bits: u32 = 0;
            while (row < row_count and count < most) : (row += 1) {
                const threshold = thresholds[row];
                if (threshold == 0 or threshold == always) {
                    @memset(tile.output(row), if (threshold == 0) 0 else all_ones);
                } else {
                    const stream = &tile.streams[count];
                    stream.* = .of(row, call.first_stream +% @as(u32, @truncate(index)), sample, threshold, tile.keys);
                    if (straddling) tile.words.add(count * tile.period, tile.period, stream);
                    count += 1;
                    bits |= threshold;
                }
                index += 1;
                if (index == stream_count) {
                    index = 0;
                    sample +%= 1;
                }
            }
            if (bits << 4 == 0) tile.first(straddling, 1, count) else tile.first(straddling, first_blocks, count);
            for (tile.streams[0..count], 0..) |stream, i| tile.store(stream.row, i * tile.period);
            if (bits << first_draws != 0) tile.enqueue(count);
            while (tile.queue.count >= Queue.batch) tile.queue.advance(Queue.batch, @ptrCast(call.words), call.domain, tile.keys);
        }
    }

    fn output(tile: *const Tile, row: usize) []u64 {
        return tile.call.words[row * tile.call.word_count + tile.first_word ..][0..tile.width];
    }

    fn store(tile: *const Tile, row: usize, position: usize) void {
        const from = tile.ones[position..][0..tile.width];
        const to = tile.output(row);
        var word: usize = 0;
        while (word + lanes <= to.len) : (word += lanes) to[word..][0..lanes].* = from[word..][0..lanes].*;
        while (word < to.len) : (word += 1) to[word] = from[word];
    }

    /// Fill `stream_of` and `word_of`; words that are in no stream get a number no stream has.
    fn number(tile: *Tile, filled: usize) void {
        var stream: u8 = 0;
        var word: u8 = 0;
        for (tile.stream_of[0..filled], tile.word_of[0..filled]) |*s, *w| {
            s.* = if (word < tile.width) stream else chunk_words;
            w.* = word;
            word += 1;
            if (word == tile.period) {
                word = 0;
                stream += 1;
            }
        }
    }

    /// First stage for the chunk's words: `ones`, `undecided` and `open`.
    fn first(tile: *Tile, comptime straddling: bool, comptime blocks: usize, count: usize) void {
        const keys = tile.keys;
        const period = tile.period;
        const filled = count * period;
        tile.open = @splat(0);
        var stream: usize = 0;
        var word: usize = 0;
        var position: usize = 0;
        while (position < filled) : (position += lanes) {
            var parts: [3]Lanes = undefined;
            inline for (0..3) |i| parts[i] = if (straddling) load(&tile.words.parts[i], position) else @splat(tile.streams[stream].parts[i]);
            var chains: [blocks][2][4]Lanes = undefined;
            inline for (&chains, 0..) |*pair, b| {
                inline for (0..2) |half| {
                    const place = &tile.places.parts[b][half];
                    pair[half] = .{ load(&place[0], word) ^ parts[0], load(&place[1], word), load(&place[2], word) ^ parts[1], parts[2] };
                }
                // The keys of the third round are in the parts.
                philox.round(2, pair, .{ @splat(0), @splat(0) });
                inline for (3..rounds) |r| philox.round(2, pair, .{ @splat(keys[r][0]), @splat(keys[r][1]) });
            }
            var draws: [4 * blocks]Lanes = undefined;
            var bits: [4 * blocks]Lanes = undefined;
            inline for (&draws, 0..) |*draw, k| draw.* = philox.joined(chains[k / 4][0][k % 4], chains[k / 4][1][k % 4]);
            inline for (&bits, 0..) |*bit, k| {
                if (straddling) {
                    const rest = @as(Halves, @bitCast(load(&tile.words.threshold, position))) << @splat(k);
                    bit.* = @bitCast(@as(@Vector(2 * lanes, i32), @bitCast(rest)) >> @splat(31));
                } else bit.* = @splat(tile.streams[stream].bits[k]);
            }
            const compared: Compared = .of(4 * blocks, draws, bits);
            tile.ones[position..][0..lanes].* = compared.less;
            tile.undecided[position..][0..lanes].* = compared.equal;
            const equal: Halves = @bitCast(compared.equal);
            const mask: @Int(.unsigned, 2 * lanes) = @bitCast(equal != @as(Halves, @splat(0)));
            tile.open[position / 32] |= @as(u64, mask) << @truncate(2 * position);
            word += lanes;
            while (word >= period) {
                word -= period;
                stream += 1;
            }
        }
    }

    /// Put the chunk's undecided 32-bit words into the queue.
    fn enqueue(tile: *Tile, count: usize) void {
        const queue = tile.queue;
        const word_count: usize = tile.call.word_count;
        const first_word = tile.first_word;
        const first_draw = 16 * @as(usize, tile.call.first_word) + first_blocks;
        const undecided: [*]const u32 = @ptrCast(&tile.undecided);
        const filled = count * tile.period;
        var to = queue.count;
        for (tile.open[0 .. (2 * filled + 63) / 64], 0..) |mask, i| {
            // The last vector may end after the last stream, where nothing was filled in.
            var left = mask & all_ones >> @intCast(64 - @min(64, 2 * filled - 64 * i));
            while (left != 0) : (left &= left - 1) {
                const position = 64 * i + @ctz(left);
                const number_of = tile.stream_of[position / 2];
                if (number_of == chunk_words) continue;
                const stream = &tile.streams[number_of];
                const rest = stream.threshold << first_draws;
                if (rest == 0) continue;
                const place = 2 * (first_word + tile.word_of[position / 2]) + position % 2;
                queue.place[to] = 2 * stream.row * word_count + place;
                queue.counter[0][to] = @truncate(8 * place + first_draw);
                queue.counter[1][to] = stream.index;
                queue.counter[2][to] = stream.sample;
                queue.rest[to] = rest;
                queue.undecided[to] = undecided[position];
                to += 1;
            }
        }
        queue.count = to;
    }
};

pub fn encode(call: *const abi.Encode) callconv(.c) void {
    const word_count: usize = call.word_count;
    const keys = philox.schedule(rounds, call.key_lo, call.key_hi);
    const words: [*]u32 = @ptrCast(call.words);
    var queue: Queue = .{};
    var first_word: usize = 0;
    while (first_word < word_count) : (first_word += chunk_words) {
        const width: usize = @min(chunk_words, word_count - first_word);
        const padded = std.mem.alignForward(usize, width, lanes);
        // Vectors that straddle streams cost more than a few idle lanes.
        const straddling = 8 * (padded - width) > width;
        var tile: Tile = .{
            .call = call,
            .keys = &keys,
            .queue = &queue,
            .first_word = first_word,
            .width = width,
            .period = if (straddling) width else padded,
        };
        if (straddling) tile.run(true) else tile.run(false);
    }
    while (queue.count != 0) queue.advance(@min(queue.count, Queue.batch), words, call.domain, &keys);
    if (call.tail_bits == 64 or word_count == 0) return;
    const tail_mask = all_ones >> @truncate(64 -% call.tail_bits);
    for (0..@as(usize, call.sample_count) * call.stream_count) |row| call.words[row * word_count + word_count - 1] &= tail_mask;
}

test "draws below, at and above the first bits of a threshold" {
    var random: std.Random.DefaultPrng = .init(3);
    for (0..100) |_| {
        var draws: [first_draws]Lanes = undefined;
        var bits: [first_draws]Lanes = undefined;
        var numbers: [2][64 * lanes]u8 = @splat(@splat(0));
        for (&draws, &bits, 0..) |*draw, *bit, k| {
            // Most draws agree with the threshold, so that late ones decide too.
            var pair: [2][lanes]u64 = undefined;
            for (&pair[0], &pair[1]) |*d, *b| {
                b.* = random.random().int(u64);
                d.* = b.* ^ (random.random().int(u64) & random.random().int(u64) & random.random().int(u64));
            }
            draw.* = pair[0];
            bit.* = pair[1];
            for (pair, &numbers) |words, *places| {
                for (places, 0..) |*number, t| number.* |= @as(u8, @truncate(words[t / 64] >> @truncate(t) & 1)) << @intCast(first_draws - 1 - k);
            }
        }
        const compared: Compared = .of(first_draws, draws, bits);
        const less: [lanes]u64 = compared.less;
        const equal: [lanes]u64 = compared.equal;
        for (numbers[0], numbers[1], 0..) |draw, threshold, t| {
            const tie = equal[t / 64] >> @truncate(t) & 1;
            try std.testing.expectEqual(@intFromBool(draw == threshold), tie);
            if (tie == 0) try std.testing.expectEqual(@intFromBool(draw < threshold), less[t / 64] >> @truncate(t) & 1);
        }
    }
}

test "a bit is a Philox number below the threshold, whatever the shape" {
    const threshold = 0x5a5a_5a5b;
    inline for (.{ .{ 1, 1 }, .{ 1, 3 }, .{ 5, 2 }, .{ 300, 1 } }) |shape| {
        const word_count = shape[0];
        const stream_count = shape[1];
        const thresholds: [stream_count]u32 = @splat(threshold);
        var words: [stream_count * word_count]u64 = undefined;
        encode(&.{
            .sample_count = 1,
            .stream_count = stream_count,
            .word_count = word_count,
            .tail_bits = 64,
            .first_sample = 7,
            .first_stream = 9,
            .first_word = 11,
            .threshold_offset = 0,
            .domain = 13,
            .key_lo = 15,
            .key_hi = 17,
            .thresholds = &thresholds,
            .thresholds_len = stream_count,
            .words = &words,
            .words_len = words.len,
        });
        for (0..stream_count) |stream| {
            for (0..2 * word_count) |half| {
                const index: u32 = @intCast(2 * 11 + half);
                var counters: [32]u32 = undefined;
                for (0..8) |block| counters[4 * block ..][0..4].* = .{ 8 * index + @as(u32, @intCast(block)), @intCast(9 + stream), 7, 13 };
                var draws: [32]u32 = undefined;
                philox.philox(&.{
                    .block_count = 8,
                    .rounds = rounds,
                    .counters = &counters,
                    .counters_len = counters.len,
                    .keys = &@as([16]u32, @bitCast(@as([8][2]u32, @splat(.{ 15, 17 })))),
                    .keys_len = 16,
                    .words = &draws,
                    .words_len = draws.len,
                });
                for (0..32) |t| {
                    var number: u32 = 0;
                    for (draws) |draw| number = number << 1 | (draw >> @intCast(t) & 1);
                    const bit = words[stream * word_count + half / 2] >> @truncate(32 * (half % 2) + t) & 1;
                    try std.testing.expectEqual(@intFromBool(number < threshold), bit);
                }
            }
        }
    }
}
