//! dense: products of bitstreams accumulated by counting ones.
//! Computes:  counts[b, n] = base + popcount(weights[n] AND inputs[b])  (unipolar)
//!            counts[b, n] = base - popcount(weights[n] XOR inputs[b])  (bipolar)
//!            over the words word_begin .. word_end of a row; base is `initial`, or the
//!            count already there when `accumulate` is 1
//! Layout:    count (b, n) lies at count_offset + b * count_stride + n
//! Why XOR:   with zero tails popcount(XNOR, masked) summed over the inputs is
//!            n_inputs * length - popcount(XOR), so `initial` carries n_inputs * length
//! Blocks:    a panel of words is multiplied for a tile of neurons and samples held in registers; those
//!            of a group of neurons stay in the first-level cache, those of a block of samples in the second
//! Exactness: integer; equals shaders/dense.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const popcount = @import("popcount.zig");

/// Words of a row that are multiplied before the next tile: the rows of a group of neurons and of a
/// tile's samples fit 32 KiB together.
const panel_words = 512;
/// Neurons whose panels stay in the first-level cache while a block of samples passes: a multiple of
/// every tile's.
const neuron_group = 4;
/// Samples whose panels stay in the second-level cache while all neurons pass.
const sample_block = 128;
/// So many words of weights stay in the second-level cache by themselves.
const near_words = 1 << 16;
/// So many neurons, and rows of so many words, are worth a copy of the panels of a block of samples.
const copied_neurons = 64;
const copied_words = 16 * panel_words;
const line_words = 8;
/// From one copied panel to the next: a line more, for rows that begin in the same place of a page get in
/// each other's way.
const copy_stride = panel_words + line_words;

/// Memory for the copied panels of one block, kept between calls: new pages would cost as much as is gained.
const Copies = struct {
    const Words = [sample_block * copy_stride]u64;

    var kept: [16]std.atomic.Value(?*Words) = @splat(.init(null));

    /// Null when there is no memory.
    fn take() ?*Words {
        for (&kept) |*one_kept| {
            if (one_kept.load(.monotonic) == null) continue;
            if (one_kept.swap(null, .acquire)) |words| return words;
        }
        return std.heap.page_allocator.create(Words) catch null;
    }

    fn give(words: *Words) void {
        for (&kept) |*one_kept| {
            if (one_kept.cmpxchgStrong(null, words, .release, .monotonic) == null) return;
        }
        std.heap.page_allocator.destroy(words);
    }
};

/// A panel of the weights and of a block of samples, whose products are added to the counts.
const Panel = struct {
    call: *const abi.Dense,
    /// Of the first neuron.
    weights: [*]const u64,
    /// Of the block's first sample, and from one sample to the next.
    inputs: [*]const u64,
    input_stride: usize,
    word_count: usize,
    first_sample: usize,
    sample_count: usize,
    first: bool,

    /// Multiply `neurons` weight rows with `samples` input rows and add to their counts.
    fn tile(panel: Panel, comptime bipolar: bool, comptime neurons: usize, comptime samples: usize, neuron: usize, sample: usize) void {
        const call = panel.call;
        const row_words: usize = call.row_words;
        const count_stride: usize = call.count_stride;
        var weights: [neurons][*]const u64 = undefined;
        var inputs: [samples][*]const u64 = undefined;
        inline for (0..neurons) |n| weights[n] = panel.weights + (neuron + n) * row_words;
        inline for (0..samples) |s| inputs[s] = panel.inputs + (sample + s) * panel.input_stride;
        const ones = popcount.products(if (bipolar) .xor else .bit_and, neurons, samples, weights, inputs, panel.word_count);
        inline for (0..samples) |s| {
            const counts = call.counts + call.count_offset + (panel.first_sample + sample + s) * count_stride + neuron;
            inline for (0..neurons) |n| {
                const base = if (panel.first) call.initial else counts[n];
                counts[n] = if (bipolar) base -% ones[n][s] else base +% ones[n][s];
            }
        }
    }

    /// All samples by the neurons `first` .. `end`, while the panels of the next ones come nearer.
    fn group(panel: Panel, comptime bipolar: bool, comptime neurons: usize, comptime samples: usize, first: usize, end: usize, next: Rows) void {
        const lines = next.count * (panel_words / line_words);
        const share = std.math.divCeil(usize, lines * samples, panel.sample_count) catch unreachable;
        var line: usize = 0;
        var sample: usize = 0;
        while (sample + samples <= panel.sample_count) : (sample += samples) {
            const stop: usize = @min(line + share, lines);
            while (line < stop) : (line += 1) next.fetch(line);
            panel.neuronsOf(bipolar, neurons, samples, first, end, sample);
        }
        while (sample < panel.sample_count) : (sample += 1) panel.neuronsOf(bipolar, neurons, 1, first, end, sample);
    }

    fn neuronsOf(panel: Panel, comptime bipolar: bool, comptime neurons: usize, comptime samples: usize, first: usize, end: usize, sample: usize) void {
        var neuron = first;
        while (neuron + neurons <= end) : (neuron += neurons) panel.tile(bipolar, neurons, samples, neuron, sample);
        while (neuron < end) : (neuron += 1) panel.tile(bipolar, 1, samples, neuron, sample);
    }
};

/// Panels of weights that are wanted next.
const Rows = struct {
    begin: [*]const u64,
    stride: usize,
    count: usize,

    fn fetch(rows: Rows, line: usize) void {
        const row_lines = panel_words / line_words;
        @prefetch(rows.begin + line / row_lines * rows.stride + line % row_lines * line_words, .{});
    }
};

/// One sample reads every weight once: the longest runs are the best.
fn one(comptime bipolar: bool, call: *const abi.Dense, begin: usize, end: usize) void {
    const panel: Panel = .{
        .call = call,
        .weights = call.weights + begin,
        .inputs = call.inputs + begin,
        .input_stride = 0,
        .word_count = end - begin,
        .first_sample = 0,
        .sample_count = 1,
        .first = call.accumulate == 0,
    };
    panel.neuronsOf(bipolar, popcount.one.neurons, popcount.one.samples, 0, call.neuron_count, 0);
}

fn many(comptime bipolar: bool, call: *const abi.Dense, begin: usize, end: usize, copies: ?*Copies.Words) void {
    const neuron_count: usize = call.neuron_count;
    const row_words: usize = call.row_words;
    const sample_count: usize = call.sample_count;
    // Blocks of one size, in whole tiles: a small last one would wait for the weights.
    const blocks = @max(1, std.math.divCeil(usize, sample_count, sample_block) catch unreachable);
    const block = std.mem.alignForward(usize, @max(1, std.math.divCeil(usize, sample_count, blocks) catch unreachable), popcount.many.samples);
    const next_rows: usize = if (neuron_count * row_words > near_words) neuron_group else 0;
    var sample: usize = 0;
    while (sample < sample_count) : (sample += block) {
        var word = begin;
        while (true) {
            const stop: usize = @min(word + panel_words, end);
            var panel: Panel = .{
                .call = call,
                .weights = call.weights + word,
                .inputs = call.inputs + sample * row_words + word,
                .input_stride = row_words,
                .word_count = stop - word,
                .first_sample = sample,
                .sample_count = @min(block, sample_count - sample),
                .first = word == begin and call.accumulate == 0,
            };
            if (copies) |words| {
                for (0..panel.sample_count) |s| {
                    @memcpy(words[s * copy_stride ..][0..panel.word_count], panel.inputs + s * row_words);
                }
                panel.inputs = words;
                panel.input_stride = copy_stride;
            }
            var first: usize = 0;
            while (first < neuron_count) : (first += neuron_group) {
                const group_end: usize = @min(first + neuron_group, neuron_count);
                // After the last neurons come the first ones, with the next words.
                const next: Rows = if (group_end < neuron_count) .{
                    .begin = panel.weights + group_end * row_words,
                    .stride = row_words,
                    .count = @min(next_rows, neuron_count - group_end),
                } else .{
                    .begin = call.weights + stop,
                    .stride = row_words,
                    .count = if (stop < end) @min(next_rows, neuron_count) else 0,
                };
                panel.group(bipolar, popcount.many.neurons, popcount.many.samples, first, group_end, next);
            }
            word = stop;
            if (word >= end) break;
        }
    }
}

fn multiply(comptime bipolar: bool, call: *const abi.Dense) void {
    const begin: usize = @min(call.word_begin, call.row_words);
    const end: usize = @max(begin, @min(call.word_end, call.row_words));
    if (call.sample_count == 1) return one(bipolar, call, begin, end);
    // Panels of rows whose lengths are powers of two would share a few sets of the second-level
    // cache. Without memory for copies they do.
    const copied = call.neuron_count >= copied_neurons and end - begin >= copied_words;
    const copies: ?*Copies.Words = if (copied) Copies.take() else null;
    defer if (copies) |words| Copies.give(words);
    many(bipolar, call, begin, end, copies);
}

pub fn dense(call: *const abi.Dense) callconv(.c) void {
    if (call.bipolar != 0) multiply(true, call) else multiply(false, call);
}

test "copies of panels change no count" {
    const neurons = 5;
    const samples = sample_block + 7;
    const row_words = panel_words + 9;
    var random: std.Random.DefaultPrng = .init(3);
    var weights: [neurons * row_words]u64 = undefined;
    var inputs: [samples * row_words]u64 = undefined;
    random.random().bytes(std.mem.asBytes(&weights));
    random.random().bytes(std.mem.asBytes(&inputs));
    for ([_]u32{ 0, 1 }) |bipolar| {
        var counts: [2][neurons * samples]u32 = undefined;
        for (&counts, [_]bool{ false, true }) |*found, copied| {
            const call: abi.Dense = .{
                .sample_count = samples,
                .neuron_count = neurons,
                .row_words = row_words,
                .word_begin = 1,
                .word_end = row_words,
                .count_offset = 0,
                .count_stride = neurons,
                .initial = 100,
                .accumulate = 0,
                .bipolar = bipolar,
                .weights = &weights,
                .weights_len = weights.len,
                .inputs = &inputs,
                .inputs_len = inputs.len,
                .counts = found,
                .counts_len = found.len,
            };
            const copies = if (copied) Copies.take() orelse return error.OutOfMemory else null;
            defer if (copies) |words| Copies.give(words);
            if (bipolar != 0) many(true, &call, 1, row_words, copies) else many(false, &call, 1, row_words, copies);
        }
        try std.testing.expectEqualSlices(u32, &counts[0], &counts[1]);
        for (0..samples) |s| {
            for (0..neurons) |n| {
                var expected: u32 = 100;
                for (weights[n * row_words ..][1..row_words], inputs[s * row_words ..][1..row_words]) |w, x| {
                    if (bipolar != 0) expected -%= @popCount(w ^ x) else expected += @popCount(w & x);
                }
                try std.testing.expectEqual(expected, counts[0][s * neurons + n]);
            }
        }
    }
}

test "memory for copies is kept, and given back when there is enough" {
    var taken: [Copies.kept.len + 1]*Copies.Words = undefined;
    for (&taken) |*words| words.* = Copies.take() orelse return error.OutOfMemory;
    for (taken) |words| {
        words[0] = 1;
        Copies.give(words);
    }
    var again: usize = 0;
    for (&Copies.kept) |*one_kept| again += @intFromBool(one_kept.load(.monotonic) != null);
    try std.testing.expectEqual(Copies.kept.len, again);
}
