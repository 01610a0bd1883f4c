//! dense: products of bitstreams accumulated by counting ones.
//! Computes:  counts[b, n] = base + popcount(weights[n] AND inputs[b])  (unipolar)
//!            counts[b, n] = base - popcount(weights[n] XOR inputs[b])  (bipolar)
//!            over the words word_begin .. word_end of a row; base is `initial`, or the
//!            count already there when `accumulate` is 1
//! Why XOR:   with zero tails popcount(XNOR, masked) summed over the inputs is
//!            n_inputs * length - popcount(XOR), so `initial` carries n_inputs * length
//! Exactness: integer; equals shaders/dense.wgsl bit for bit

const std = @import("std");
const abi = @import("abi.zig");

const lanes = std.simd.suggestVectorLength(u64) orelse 2;
const Lanes = @Vector(lanes, u64);
const neuron_tile = 4;

/// Ones in the products of one input row with `rows` weight rows, which share its loads.
fn popcounts(comptime bipolar: bool, comptime rows: usize, weights: [rows][]const u64, input: []const u64) [rows]u32 {
    var sums: [rows]Lanes = @splat(@splat(0));
    var w: usize = 0;
    while (w + lanes <= input.len) : (w += lanes) {
        const x: Lanes = input[w..][0..lanes].*;
        inline for (0..rows) |r| {
            const weight: Lanes = weights[r][w..][0..lanes].*;
            sums[r] += @popCount(if (bipolar) weight ^ x else weight & x);
        }
    }
    var totals: [rows]u32 = undefined;
    inline for (0..rows) |r| {
        var total: u64 = @reduce(.Add, sums[r]);
        for (weights[r][w..input.len], input[w..]) |weight, x| {
            total += @popCount(if (bipolar) weight ^ x else weight & x);
        }
        totals[r] = @truncate(total);
    }
    return totals;
}

fn accumulate(comptime bipolar: bool, call: *const abi.Dense) void {
    const row_words: usize = call.row_words;
    const begin: usize = @min(call.word_begin, row_words);
    const end: usize = @max(begin, @min(call.word_end, row_words));
    const neuron_count: usize = call.neuron_count;
    const weights = call.weights[0 .. neuron_count * row_words];
    for (0..call.sample_count) |sample| {
        const input = call.inputs[sample * row_words ..][begin..end];
        const counts = call.counts[call.count_offset + sample * neuron_count ..][0..neuron_count];
        var neuron: usize = 0;
        while (neuron < neuron_count) {
            if (neuron_count - neuron >= neuron_tile) {
                store(bipolar, neuron_tile, call, weights, input, counts, neuron, begin, end);
                neuron += neuron_tile;
            } else {
                store(bipolar, 1, call, weights, input, counts, neuron, begin, end);
                neuron += 1;
            }
        }
    }
}

inline fn store(
    comptime bipolar: bool,
    comptime rows: usize,
    call: *const abi.Dense,
    weights: []const u64,
    input: []const u64,
    counts: []u32,
    neuron: usize,
    begin: usize,
    end: usize,
) void {
    var tile: [rows][]const u64 = undefined;
    inline for (0..rows) |r| tile[r] = weights[(neuron + r) * call.row_words ..][begin..end];
    for (popcounts(bipolar, rows, tile, input), counts[neuron..][0..rows]) |ones, *count| {
        const base = if (call.accumulate != 0) count.* else call.initial;
        count.* = if (bipolar) base -% ones else base +% ones;
    }
}

pub fn dense(call: *const abi.Dense) callconv(.c) void {
    if (call.bipolar != 0) accumulate(true, call) else accumulate(false, call);
}
