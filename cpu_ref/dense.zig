//! dense: products of bitstreams accumulated by counting ones.
//! Computes:  counts[b, n] = base + popcount(weights[n] AND inputs[b])  (unipolar)
//!            counts[b, n] = base - popcount(weights[n] XOR inputs[b])  (bipolar)
//!            over the words word_begin .. word_end of a row; base is `initial`, or the
//!            count already there when `accumulate` is 1
//! Layout:    count (b, n) lies at count_offset + b * count_stride + n
//! Why XOR:   with zero tails popcount(XNOR, masked) summed over the inputs is
//!            n_inputs * length - popcount(XOR), so `initial` carries n_inputs * length
//! Blocks:    a panel of words that stays in the first-level cache is multiplied for a tile of
//!            neurons and samples held in registers
//! Exactness: integer; equals shaders/dense.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");
const popcount = @import("popcount.zig");

/// Words of a row that are multiplied before the next tile: the rows of a group of neurons and of a
/// tile's samples fit 32 KiB together.
const panel_words = 512;
/// Neurons whose panels stay in the first-level cache while all samples pass: a multiple of every tile's.
const neuron_group = 4;
/// Neurons whose panels are multiplied before the next panel, so that those of the samples stay in the
/// second-level cache.
const neuron_block = 64;

const Tile = struct {
    call: *const abi.Dense,
    begin: usize,
    end: usize,
    first: bool,

    /// Multiply `neurons` weight rows with `samples` input rows and add to their counts.
    fn run(tile: Tile, comptime bipolar: bool, comptime neurons: usize, comptime samples: usize, neuron: usize, sample: usize) void {
        const call = tile.call;
        const row_words: usize = call.row_words;
        const count_stride: usize = call.count_stride;
        var weights: [neurons][*]const u64 = undefined;
        var inputs: [samples][*]const u64 = undefined;
        inline for (0..neurons) |n| weights[n] = call.weights + (neuron + n) * row_words + tile.begin;
        inline for (0..samples) |s| inputs[s] = call.inputs + (sample + s) * row_words + tile.begin;
        const ones = popcount.products(if (bipolar) .xor else .bit_and, neurons, samples, weights, inputs, tile.end - tile.begin);
        inline for (0..samples) |s| {
            const counts = call.counts + call.count_offset + (sample + s) * count_stride + neuron;
            inline for (0..neurons) |n| {
                const base = if (tile.first) call.initial else counts[n];
                counts[n] = if (bipolar) base -% ones[n][s] else base +% ones[n][s];
            }
        }
    }

    /// All samples by the neurons `first` .. `end`.
    fn samplesOf(tile: Tile, comptime bipolar: bool, comptime neurons: usize, comptime samples: usize, first: usize, end: usize) void {
        const sample_count: usize = tile.call.sample_count;
        var sample: usize = 0;
        while (sample + samples <= sample_count) : (sample += samples) tile.neuronsOf(bipolar, neurons, samples, first, end, sample);
        while (sample < sample_count) : (sample += 1) tile.neuronsOf(bipolar, neurons, 1, first, end, sample);
    }

    fn neuronsOf(tile: Tile, comptime bipolar: bool, comptime neurons: usize, comptime samples: usize, first: usize, end: usize, sample: usize) void {
        var neuron = first;
        while (neuron + neurons <= end) : (neuron += neurons) tile.run(bipolar, neurons, samples, neuron, sample);
        while (neuron < end) : (neuron += 1) tile.run(bipolar, 1, samples, neuron, sample);
    }
};

fn multiply(comptime bipolar: bool, call: *const abi.Dense) void {
    const neuron_count: usize = call.neuron_count;
    const row_words: usize = call.row_words;
    const begin: usize = @min(call.word_begin, row_words);
    const end: usize = @max(begin, @min(call.word_end, row_words));
    // One sample reads every weight once: the longest runs are the best.
    const panel: usize = if (call.sample_count == 1) @max(end - begin, 1) else panel_words;
    var block: usize = 0;
    while (block < neuron_count) : (block += neuron_block) {
        const block_end: usize = @min(block + neuron_block, neuron_count);
        var word = begin;
        while (true) {
            const tile: Tile = .{
                .call = call,
                .begin = word,
                .end = @min(word + panel, end),
                .first = word == begin and call.accumulate == 0,
            };
            if (call.sample_count == 1) {
                tile.samplesOf(bipolar, popcount.one.neurons, popcount.one.samples, block, block_end);
            } else {
                var first = block;
                while (first < block_end) : (first += neuron_group) {
                    const group_end: usize = @min(first + neuron_group, block_end);
                    tile.samplesOf(bipolar, popcount.many.neurons, popcount.many.samples, first, group_end);
                }
            }
            word = tile.end;
            if (word >= end) break;
        }
    }
}

pub fn dense(call: *const abi.Dense) callconv(.c) void {
    if (call.bipolar != 0) multiply(true, call) else multiply(false, call);
}
