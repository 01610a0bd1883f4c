//! popcount: ones in the products of bitstream rows, in registers, as each tier does it best.

const std = @import("std");
const builtin = @import("builtin");

pub const lanes = std.simd.suggestVectorLength(u64) orelse 2;
pub const Lanes = @Vector(lanes, u64);

/// A vector population count is one instruction, so carry-save adders would cost more.
const native = builtin.cpu.arch == .aarch64 or
    (builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512vpopcntdq));
const ternary = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512f);

/// Weight rows by input rows whose counts are held in registers, for many samples and for one. Adders
/// hold a vector of each level for each.
pub const many = if (native) .{ .neurons = 4, .samples = 4 } else .{ .neurons = 2, .samples = 2 };
pub const one = .{ .neurons = 4, .samples = 1 };

/// `none` takes the input as it is.
pub const Product = enum { bit_and, xor, none };

extern fn @"llvm.x86.avx512.pternlog.q.512"(Lanes, Lanes, Lanes, i32) callconv(.auto) Lanes;

inline fn load(row: [*]const u64, word: usize) Lanes {
    return row[word..][0..lanes].*;
}

inline fn multiply(comptime product: Product, w: anytype, x: @TypeOf(w)) @TypeOf(w) {
    return switch (product) {
        .bit_and => w & x,
        .xor => w ^ x,
        .none => x,
    };
}

/// Ones in weights[n] * inputs[s] over `word_count` words, for every n and s.
pub fn products(
    comptime product: Product,
    comptime neurons: usize,
    comptime samples: usize,
    weights: [neurons][*]const u64,
    inputs: [samples][*]const u64,
    word_count: usize,
) [neurons][samples]u32 {
    var sums: [neurons][samples]Lanes = @splat(@splat(@splat(0)));
    var word: usize = 0;
    inline for (adder_levels) |levels| {
        word = carrySave(levels, product, neurons, samples, weights, inputs, word, word_count, &sums);
    }
    while (word + lanes <= word_count) : (word += lanes) {
        var w: [neurons]Lanes = undefined;
        inline for (0..neurons) |n| w[n] = load(weights[n], word);
        inline for (0..samples) |s| {
            const x = load(inputs[s], word);
            inline for (0..neurons) |n| sums[n][s] += @popCount(multiply(product, w[n], x));
        }
    }
    var totals: [neurons][samples]u32 = undefined;
    inline for (0..neurons) |n| {
        inline for (0..samples) |s| {
            var total: u64 = @reduce(.Add, sums[n][s]);
            for (word..word_count) |rest| total += @popCount(multiply(product, weights[n][rest], inputs[s][rest]));
            totals[n][s] = @truncate(total);
        }
    }
    return totals;
}

/// Ones in a row, of which several parts are counted side by side.
pub fn count(words: []const u64) u32 {
    const part = words.len / parts;
    var rows: [parts][*]const u64 = undefined;
    for (&rows, 0..) |*row, p| row.* = words.ptr + p * part;
    var total: u32 = 0;
    for (products(.none, 1, parts, .{words.ptr}, rows, part)[0]) |ones| total += ones;
    for (words[parts * part ..]) |word| total += @popCount(word);
    return total;
}

const parts = 2;

/// Sum and carry of three bits in each position.
const Added = struct { sum: Lanes, carry: Lanes };

inline fn fullAdd(a: Lanes, b: Lanes, c: Lanes) Added {
    if (ternary) return .{
        .sum = @"llvm.x86.avx512.pternlog.q.512"(a, b, c, 0x96),
        .carry = @"llvm.x86.avx512.pternlog.q.512"(a, b, c, 0xe8),
    };
    const half = a ^ b;
    return .{ .sum = half ^ c, .carry = (a & b) | (half & c) };
}

/// fullAdd(c, w1 * x1, w2 * x2), the products folded into the adder where one instruction
/// evaluates any function of three bits.
inline fn addProducts(comptime product: Product, c: Lanes, w1: Lanes, x1: Lanes, w2: Lanes, x2: Lanes) Added {
    if (!ternary or product == .none) return fullAdd(c, multiply(product, w1, x1), multiply(product, w2, x2));
    const table = if (product == .xor) 0x96 else 0x78;
    const partial = @"llvm.x86.avx512.pternlog.q.512"(c, w1, x1, table);
    const sum = @"llvm.x86.avx512.pternlog.q.512"(partial, w2, x2, table);
    return .{ .sum = sum, .carry = @"llvm.x86.avx512.pternlog.q.512"(partial, sum, c, 0x3a) };
}

/// Levels of adders between a product and its population count, which 2^levels vectors share: the fourth
/// halves the counting, and needs registers that only AVX-512 has. Rows too short for it take three.
const adder_levels: []const comptime_int = if (native) &.{} else if (ternary) &.{ 4, 3 } else &.{3};

/// Harley-Seal: products go through a tree of carry-save adders, one population count for all of them
/// (Mula, Kurz, Lemire: Faster population counts using AVX2, 2018). Returns where the words end that
/// were done; the counts are added to `sums`.
inline fn carrySave(
    comptime levels: comptime_int,
    comptime product: Product,
    comptime neurons: usize,
    comptime samples: usize,
    weights: [neurons][*]const u64,
    inputs: [samples][*]const u64,
    begin: usize,
    end: usize,
    sums: *[neurons][samples]Lanes,
) usize {
    @setEvalBranchQuota(10_000);
    const step = lanes << levels;
    if (end - begin < step) return begin;
    const zero: [neurons][samples]Lanes = @splat(@splat(@splat(0)));
    // Of each level the ones so far, and the first of two carries that it adds to them.
    var ones: [levels][neurons][samples]Lanes = @splat(zero);
    var waiting: [levels][neurons][samples]Lanes = undefined;
    var counted = zero;
    var word = begin;
    while (word + step <= end) : (word += step) {
        // All counts in turns: the additions of one wait for one another.
        inline for (0..1 << (levels - 1)) |pair| {
            var carries: [neurons][samples]Lanes = undefined;
            inline for (0..neurons) |n| {
                const w1 = load(weights[n], word + 2 * pair * lanes);
                const w2 = load(weights[n], word + (2 * pair + 1) * lanes);
                inline for (0..samples) |s| {
                    const x1 = load(inputs[s], word + 2 * pair * lanes);
                    const x2 = load(inputs[s], word + (2 * pair + 1) * lanes);
                    const added = addProducts(product, ones[0][n][s], w1, x1, w2, x2);
                    ones[0][n][s] = added.sum;
                    carries[n][s] = added.carry;
                }
            }
            // Two carries make one of the next level.
            inline for (1..levels) |level| {
                if (pair >> (level - 1) & 1 == 0) {
                    waiting[level] = carries;
                    break;
                }
                inline for (0..neurons) |n| {
                    inline for (0..samples) |s| {
                        const added = fullAdd(ones[level][n][s], waiting[level][n][s], carries[n][s]);
                        ones[level][n][s] = added.sum;
                        carries[n][s] = added.carry;
                    }
                }
            } else {
                inline for (0..neurons) |n| {
                    inline for (0..samples) |s| counted[n][s] += @popCount(carries[n][s]);
                }
            }
        }
    }
    inline for (0..neurons) |n| {
        inline for (0..samples) |s| {
            sums[n][s] += counted[n][s] << @splat(levels);
            inline for (0..levels) |level| sums[n][s] += @as(Lanes, @popCount(ones[level][n][s])) << @splat(level);
        }
    }
    return word;
}

test "adders add" {
    const a: Lanes = @splat(0x0f);
    const b: Lanes = @splat(0x33);
    const c: Lanes = @splat(0x55);
    const added = fullAdd(a, b, c);
    try std.testing.expectEqual(@as(Lanes, @splat(0x0f ^ 0x33 ^ 0x55)), added.sum);
    try std.testing.expectEqual(@as(Lanes, @splat(0x17)), added.carry);
    inline for (.{ .bit_and, .xor, .none }) |product| {
        for (0..1 << 5) |bits| {
            var vectors: [5]Lanes = undefined;
            for (&vectors, 0..) |*vector, i| vector.* = @splat(0 -% (@as(u64, bits) >> @intCast(i) & 1));
            const w1, const x1, const w2, const x2, const carried = vectors;
            const expected = fullAdd(carried, multiply(product, w1, x1), multiply(product, w2, x2));
            try std.testing.expectEqual(expected, addProducts(product, carried, w1, x1, w2, x2));
        }
    }
}

test "products of rows of any length are counted" {
    var random: std.Random.DefaultPrng = .init(2);
    var rows: [8][200]u64 = undefined;
    for (&rows) |*row| random.random().bytes(std.mem.asBytes(row));
    for (0..200) |words| {
        inline for (.{ .bit_and, .xor, .none }) |product| {
            inline for (.{ .{ 2, 2 }, .{ 4, 1 }, .{ 4, 4 } }) |shape| {
                var weights: [shape[0]][*]const u64 = undefined;
                var inputs: [shape[1]][*]const u64 = undefined;
                for (&weights, 0..) |*row, i| row.* = &rows[i];
                for (&inputs, 4..) |*row, i| row.* = &rows[i];
                const found = products(product, shape[0], shape[1], weights, inputs, words);
                for (found, weights) |of_weight, w| {
                    for (of_weight, inputs) |got, x| {
                        var expected: u32 = 0;
                        for (w[0..words], x[0..words]) |p, q| expected += @popCount(multiply(product, p, q));
                        try std.testing.expectEqual(expected, got);
                    }
                }
            }
        }
        var expected: u32 = 0;
        for (rows[0][0..words]) |word| expected += @popCount(word);
        try std.testing.expectEqual(expected, count(rows[0][0..words]));
    }
}
