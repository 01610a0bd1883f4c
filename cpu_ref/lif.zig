//! lif: leaky integrate-and-fire neurons in fixed point, many steps for each.
//! Computes:  for every neuron and step, M(x) being the low data_width bits of x with their sign:
//!              refractory > 0:  refractory -= 1, v = v_rest, no spike
//!              else:            v = M(v + (M2(v_rest - v) * leak_k >> fraction)
//!                                       + (current * gain_k >> fraction) + noise),
//!                               M2 being 2 * data_width bits, 16 at most;
//!                               v >= v_threshold: a spike, v = v_reset, refractory = period
//! Layout:    parameter p of neuron i at p * parameter_stride + i (i = 0 where the stride is 1), in
//!            the order leak_k, gain_k, v_rest, v_reset, v_threshold, period; state 2 i is v, 2 i + 1
//!            refractory; current (i, t) at i * current_neuron_stride + t * current_step_stride;
//!            records have a row for each neuron; the bit of step t is that of a bitstream
//! Padding:   bits past the last step of the last word are 0; bits before first_bit stay
//! Limits:    first_bit is 0, or first_bit + step_count at most 64
//! Exactness: integer; equals shaders/lif.wgsl bit for bit

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");

const lanes = std.simd.suggestVectorLength(i16) orelse 8;
const Lanes = @Vector(lanes, i16);
const Unsigned = @Vector(lanes, u16);
const Wide = @Vector(lanes, i32);
const Words = @Vector(lanes, u64);

/// Steps between two visits to a neuron's rows: the longer, the better for the memory behind, which
/// has pages open of a few rows at a time; but what is in flight stands on the stack.
const tile_steps = 1024;
const tile_words = tile_steps / 64;
/// Not a power of two, or the rows of a tile would share few sets of the first-level cache.
const row_length = tile_steps + 32;

/// The low `width` bits of a number and their sign.
inline fn signed(value: i32, width: u32) i32 {
    const shift: u5 = @intCast(32 - width);
    return (value << shift) >> shift;
}

/// What one neuron is, in the order of the parameters.
const Neuron = struct {
    leak_k: i16 = 0,
    gain_k: i16 = 0,
    v_rest: i16 = 0,
    v_reset: i16 = 0,
    v_threshold: i16 = 0,
    period: i16 = 0,

    fn load(call: *const abi.Lif, neuron: usize) Neuron {
        const stride: usize = call.parameter_stride;
        const table = call.parameters + (if (stride > 1) neuron else 0);
        return .{
            .leak_k = table[0],
            .gain_k = table[stride],
            .v_rest = table[2 * stride],
            .v_reset = table[3 * stride],
            .v_threshold = table[4 * stride],
            .period = table[5 * stride],
        };
    }

    /// v after a step that is not refractory, before the threshold is looked at.
    fn reached(neuron: *const Neuron, call: *const abi.Lif, v: i16, drive: i16) i16 {
        const difference = signed(@as(i32, neuron.v_rest) - v, @min(2 * call.data_width, 16));
        const leak = (difference * neuron.leak_k) >> @intCast(call.fraction);
        return @truncate(signed(leak + v + drive, call.data_width));
    }
};

/// One of the two inputs: what it is for a neuron and a step.
const Input = struct {
    values: [*]const i16,
    neuron_stride: usize,
    step_stride: usize,

    fn current(call: *const abi.Lif) Input {
        return .{ .values = call.currents, .neuron_stride = call.current_neuron_stride, .step_stride = call.current_step_stride };
    }

    fn noise(call: *const abi.Lif) Input {
        return .{ .values = call.noises, .neuron_stride = call.noise_neuron_stride, .step_stride = call.noise_step_stride };
    }

    inline fn at(input: Input, neuron: usize, step: usize) i32 {
        return input.values[neuron * input.neuron_stride + step * input.step_stride];
    }

    /// Of `count` neighbouring neurons, at most a vector of them, in one step.
    inline fn across(input: Input, first: usize, count: usize, step: usize) Lanes {
        const values = input.values + first * input.neuron_stride + step * input.step_stride;
        if (input.neuron_stride == 0) return @splat(values[0]);
        if (input.neuron_stride == 1 and count >= lanes) return values[0..lanes].*;
        var each: [lanes]i16 = @splat(0);
        for (each[0..@min(count, lanes)], 0..) |*value, i| value.* = values[i * input.neuron_stride];
        return each;
    }
};

/// What current and noise add to v, exact in its low 16 bits.
inline fn driveOf(neuron: *const Neuron, fraction: u5, current: i32, noise: i32) i16 {
    return @truncate(((current * neuron.gain_k) >> fraction) + noise);
}

/// True when no input changes from step to step.
inline fn constant(call: *const abi.Lif) bool {
    return call.current_step_stride == 0 and call.noise_step_stride == 0;
}

/// Non-temporal stores, for arrays that no cache holds: a line is not read before it is written.
const Line = if (builtin.cpu.arch != .x86_64) void else if (builtin.cpu.has(.x86, .avx512f)) @Vector(64, u8) else if (builtin.cpu.has(.x86, .avx)) @Vector(32, u8) else @Vector(16, u8);

inline fn storePast(address: usize, line: Line) void {
    if (comptime builtin.cpu.has(.x86, .avx)) {
        asm volatile ("vmovntdq %[line], (%[address])"
            :
            : [line] "v" (line),
              [address] "r" (address),
            : .{ .memory = true });
    } else {
        asm volatile ("movntdq %[line], (%[address])"
            :
            : [line] "x" (line),
              [address] "r" (address),
            : .{ .memory = true });
    }
}

/// Copy a piece of a row to where it is recorded, whole cache lines past the caches.
fn record(comptime T: type, out: [*]T, in: []const T, past: bool) void {
    if (Line == void or !past) return @memcpy(out[0..in.len], in);
    const line = 64 / @sizeOf(T);
    const head: usize = @min(in.len, (0 -% @intFromPtr(out)) % 64 / @sizeOf(T));
    const end = head + (in.len - head) / line * line;
    @memcpy(out[0..head], in[0..head]);
    var i = head;
    while (i < end) : (i += @sizeOf(Line) / @sizeOf(T)) {
        const bytes: *align(1) const Line = @ptrCast(in[i..].ptr);
        storePast(@intFromPtr(out + i), bytes.*);
    }
    @memcpy(out[end..in.len], in[end..]);
}

/// Record a tile of one neuron: spikes as bits of words, v in order.
fn recordTile(call: *const abi.Lif, neuron: usize, tile: usize, words: []const u64, trace: []const i16, past: bool) void {
    const steps = trace.len;
    var count: u32 = 0;
    for (words) |word| count +%= @popCount(word);
    call.counts[neuron] +%= count;
    if (call.record_words != 0) {
        const out = call.words + neuron * call.row_words + call.word_begin + tile / 64;
        if (call.first_bit == 0) {
            @memcpy(out[0..words.len], words);
        } else {
            const place: u6 = @intCast(call.first_bit);
            const earlier = (@as(u64, 1) << place) - 1;
            out[0] = (out[0] & earlier) | words[0] << place;
        }
    }
    const begin = call.record_begin + tile;
    if (call.record_spikes != 0) {
        const parts = std.simd.suggestVectorLength(u32) orelse 4;
        const one: @Vector(parts, u32) = @splat(1);
        const places = one << comptime places: {
            var shifts: [parts]u5 = undefined;
            for (&shifts, 0..) |*shift, i| shift.* = i;
            break :places shifts;
        };
        var spikes: [tile_steps]u32 = undefined;
        for (words, 0..) |word, w| {
            inline for (0..64 / parts) |part| {
                const bits: u32 = @truncate(word >> (part * parts));
                spikes[64 * w + part * parts ..][0..parts].* = @min(@as(@Vector(parts, u32), @splat(bits)) & places, one);
            }
        }
        record(u32, call.spikes + neuron * call.spike_stride + begin, spikes[0..steps], past);
    }
    if (call.record_voltages != 0) {
        record(i16, call.voltages + neuron * call.voltage_stride + begin, trace, past);
    }
}

/// What a neuron with constant inputs does from some step on for ever: every spike leaves it in the
/// same state, so that it fires every `period` steps; or v stays where it is.
const Cycle = struct {
    neuron: Neuron,
    drive: i16,
    period: usize,
    fires: bool,
    /// Steps since the last spike.
    age: usize,
    v: i16,

    const State = struct { v: i16, refractory: i16 };

    /// Look for it in the spikes of a whole tile, and the state after it.
    fn find(call: *const abi.Lif, neuron: Neuron, drive: i16, words: []const u64, state: State) ?Cycle {
        var cycle: Cycle = .{ .neuron = neuron, .drive = drive, .period = 1, .fires = false, .age = 0, .v = state.v };
        var spikes: [2]usize = undefined;
        var found: usize = 0;
        var w = words.len;
        while (w > 0 and found < 2) {
            w -= 1;
            var word = words[w];
            while (word != 0 and found < 2) : (found += 1) {
                const bit: u6 = @intCast(63 - @clz(word));
                spikes[found] = 64 * w + bit;
                word &= ~(@as(u64, 1) << bit);
            }
        }
        if (found == 2) {
            cycle.fires = true;
            cycle.period = spikes[0] - spikes[1];
            cycle.age = tile_steps - 1 - spikes[0];
            return cycle;
        }
        const stays = state.v < neuron.v_threshold and neuron.reached(call, state.v, drive) == state.v;
        return if (state.refractory <= 0 and stays) cycle else null;
    }

    /// So many steps after a spike; what is recorded of v on the way goes to `trace`.
    fn walk(cycle: *const Cycle, call: *const abi.Lif, trace: []i16) State {
        const neuron = cycle.neuron;
        var state: State = .{ .v = neuron.v_reset, .refractory = neuron.period };
        for (trace) |*shown| {
            if (state.refractory > 0) {
                state.refractory -= 1;
                state.v = neuron.v_rest;
            } else {
                state.v = neuron.reached(call, state.v, cycle.drive);
                if (state.v >= neuron.v_threshold) state = .{ .v = neuron.v_reset, .refractory = neuron.period };
            }
            shown.* = @truncate(signed(state.v, call.data_width));
        }
        return state;
    }

    /// Record every step from `begin`, a multiple of 64, to the end of the call, and leave the state there.
    fn finish(cycle: *const Cycle, call: *const abi.Lif, index: usize, begin: usize, past: bool) void {
        const period = cycle.period;
        const age = cycle.age;
        const left = call.step_count - begin;
        var trace: [tile_steps]i16 = undefined;
        if (cycle.fires) {
            _ = cycle.walk(call, trace[0..period]);
        } else {
            trace[0] = @truncate(signed(cycle.v, call.data_width));
        }
        if (call.record_voltages != 0) {
            var pattern: [pattern_length]i16 = undefined;
            @memcpy(pattern[0 .. period - age], trace[age..period]);
            @memcpy(pattern[period - age .. period], trace[0..age]);
            repeat(i16, call.voltages + index * call.voltage_stride + call.record_begin + begin, left, &pattern, period, past);
        }
        if (call.record_spikes != 0) {
            var pattern: [pattern_length]u32 = undefined;
            @memset(pattern[0..period], 0);
            pattern[period - 1 - age] = @intFromBool(cycle.fires);
            repeat(u32, call.spikes + index * call.spike_stride + call.record_begin + begin, left, &pattern, period, past);
        }
        if (call.record_words != 0) {
            // So many words hold whole cycles, whatever the period.
            var pattern: [pattern_length]u64 = undefined;
            @memset(pattern[0..period], 0);
            var i = period - 1 - age;
            if (cycle.fires) while (i < 64 * period) : (i += period) {
                pattern[i / 64] |= @as(u64, 1) << @truncate(i);
            };
            const word_count = (left + 63) / 64;
            const out = call.words + index * call.row_words + call.word_begin + begin / 64;
            repeat(u64, out, word_count, &pattern, period, false);
            out[word_count - 1] &= @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(0 -% left);
        }
        if (!cycle.fires) return;
        call.counts[index] +%= @truncate((age + left) / period);
        const state = cycle.walk(call, trace[0 .. (age + left) % period]);
        call.state[2 * index] = state.v;
        call.state[2 * index + 1] = state.refractory;
    }
};

/// Steps that have to be left for the search for cycles to pay.
const worth_steps = 1024;

/// Elements of a repeated piece: some pages, and longer than any period.
const pattern_length = 2048;

/// Record the first `period` elements of a pattern over and over; the rest of it is room for copies.
fn repeat(comptime T: type, out: [*]T, length: usize, pattern: *[pattern_length]T, period: usize, past: bool) void {
    const whole = pattern_length / period * period;
    var filled = period;
    while (filled < @min(whole, length)) {
        const part: usize = @min(filled, whole - filled);
        @memcpy(pattern[filled..][0..part], pattern[0..part]);
        filled += part;
    }
    var done: usize = 0;
    while (done < length) {
        const part: usize = @min(whole, length - done);
        record(T, out + done, pattern[0..part], past);
        done += part;
    }
}

/// Lanes in 16 bytes, the piece of a vector that the shuffles of every tier stay in.
const piece = 8;

/// For shuffles of two vectors: the lower (upper) halves of each piece, interleaved.
const lower_halves = interleaved(0);
const upper_halves = interleaved(piece / 2);

fn interleaved(comptime first: i32) [lanes]i32 {
    var indices: [lanes]i32 = undefined;
    for (&indices, 0..) |*index, i| {
        const source = first + @as(i32, i / piece * piece + i % piece / 2);
        index.* = if (i % 2 == 0) source else ~source;
    }
    return indices;
}

/// Rows and columns exchanged, in each square of one piece of eight vectors.
inline fn transposed(rows: [piece]Lanes) [piece]Lanes {
    var m = rows;
    inline for (0..3) |_| {
        const old = m;
        inline for (0..piece / 2) |i| {
            m[2 * i] = @shuffle(i16, old[i], old[i + piece / 2], lower_halves);
            m[2 * i + 1] = @shuffle(i16, old[i], old[i + piece / 2], upper_halves);
        }
    }
    return m;
}

/// `groups` vectors of neurons side by side, so that the chain of one step hides behind the others.
/// `high`: every leak_k fits 16 bits once the product's higher half is the shifted product.
fn Kernel(comptime groups: usize, comptime high: bool) type {
    return struct {
        const width = groups * lanes;

        neurons: [width]Neuron,
        v: [groups]Lanes,
        refractory: [groups]Lanes,
        leak: [groups]Lanes,
        gain: [groups]Lanes,
        v_rest: [groups]Lanes,
        v_reset: [groups]Lanes,
        v_threshold: [groups]Lanes,
        period: [groups]Lanes,
        fraction: u5,
        /// Bits above those of data_width, and above the 2 * data_width of a difference.
        unused: u4,
        unused_difference: u4,

        const Self = @This();

        /// Up to 64 steps. The spikes of each neuron as bits; v of every step at `trace`.
        inline fn advance(self: *Self, drives: [*]const i16, drive_stride: usize, trace: ?[*]i16, steps: usize) [groups]Words {
            var words: [groups]Words = @splat(@splat(0));
            var v = self.v;
            var refractory = self.refractory;
            const leak = self.leak;
            const v_rest = self.v_rest;
            const v_reset = self.v_reset;
            const v_threshold = self.v_threshold;
            const period = self.period;
            const fraction: @Vector(lanes, u5) = @splat(self.fraction);
            const unused: @Vector(lanes, u4) = @splat(self.unused);
            const unused_difference: @Vector(lanes, u4) = @splat(self.unused_difference);
            const zero: Lanes = @splat(0);
            var step: usize = 0;
            while (step < steps) {
                const end: usize = @min(step + 16, steps);
                const place: @Vector(lanes, u6) = @splat(@truncate(step));
                var bit: Unsigned = @splat(1);
                var spikes: [groups]Unsigned = @splat(@splat(0));
                while (step < end) : (step += 1) {
                    inline for (0..groups) |g| {
                        const drive: Lanes = drives[step * drive_stride + g * lanes ..][0..lanes].*;
                        var difference = v_rest[g] -% v[g];
                        if (!high) difference = (difference << unused_difference) >> unused_difference;
                        const product = @as(Wide, difference) * @as(Wide, leak[g]);
                        const shifted: Lanes = @truncate(if (high) product >> @splat(16) else product >> fraction);
                        var reached = v[g] +% drive +% shifted;
                        if (!high) reached = (reached << unused) >> unused;
                        const active = refractory[g] == zero;
                        const spike = @select(bool, active, reached >= v_threshold[g], @as(@Vector(lanes, bool), @splat(false)));
                        v[g] = @select(i16, spike, v_reset[g], @select(i16, active, reached, v_rest[g]));
                        const less: Lanes = @bitCast(@as(Unsigned, @bitCast(refractory[g])) -| @as(Unsigned, @splat(1)));
                        refractory[g] = @select(i16, spike, period[g], less);
                        spikes[g] = @select(u16, spike, spikes[g] | bit, spikes[g]);
                        if (trace) |out| {
                            const shown = if (high) v[g] else (v[g] << unused) >> unused;
                            out[step * width + g * lanes ..][0..lanes].* = shown;
                        }
                    }
                    bit <<= @splat(1);
                }
                inline for (0..groups) |g| words[g] |= @as(Words, spikes[g]) << place;
            }
            self.v = v;
            self.refractory = refractory;
            return words;
        }

        fn load(call: *const abi.Lif, first: usize, count: usize) Self {
            var self: Self = undefined;
            self.fraction = @intCast(call.fraction);
            self.unused = @intCast(16 - call.data_width);
            self.unused_difference = @intCast(16 -| 2 * call.data_width);
            self.neurons = @splat(.{});
            var v: [width]i16 = @splat(0);
            var refractory: [width]i16 = @splat(0);
            for (0..count) |i| {
                self.neurons[i] = .load(call, first + i);
                v[i] = call.state[2 * (first + i)];
                refractory[i] = @max(call.state[2 * (first + i) + 1], 0);
            }
            inline for (0..groups) |g| {
                inline for (.{ "gain", "v_rest", "v_reset", "v_threshold" }, .{ "gain_k", "v_rest", "v_reset", "v_threshold" }) |name, parameter| {
                    var values: [lanes]i16 = undefined;
                    for (&values, self.neurons[g * lanes ..][0..lanes]) |*value, neuron| value.* = @field(neuron, parameter);
                    @field(self, name)[g] = values;
                }
                var leak: [lanes]i16 = undefined;
                var period: [lanes]i16 = undefined;
                for (&leak, &period, self.neurons[g * lanes ..][0..lanes]) |*k, *p, neuron| {
                    k.* = if (high) neuron.leak_k << @intCast(16 - call.fraction) else neuron.leak_k;
                    p.* = @max(neuron.period, 0);
                }
                self.leak[g] = leak;
                self.period[g] = period;
                self.v[g] = v[g * lanes ..][0..lanes].*;
                self.refractory[g] = refractory[g * lanes ..][0..lanes].*;
            }
            return self;
        }

        /// The numbers of every neuron's parameter, from `first` on.
        inline fn column(call: *const abi.Lif, number: usize, first: usize) [groups]Lanes {
            const stride: usize = call.parameter_stride;
            var values: [groups]Lanes = undefined;
            inline for (0..groups) |g| {
                const row = call.parameters + number * stride;
                values[g] = if (stride > 1) row[first + g * lanes ..][0..lanes].* else @splat(row[0]);
            }
            return values;
        }

        /// Bring `width` neurons through up to 64 steps, with nothing recorded but their words, which
        /// lie side by side: vectors all the way, for calls that are many and short.
        fn runBlock(call: *const abi.Lif, first: usize) void {
            var self: Self = undefined;
            self.fraction = @intCast(call.fraction);
            self.unused = @intCast(16 - call.data_width);
            self.unused_difference = @intCast(16 -| 2 * call.data_width);
            self.leak = column(call, 0, first);
            self.gain = column(call, 1, first);
            self.v_rest = column(call, 2, first);
            self.v_reset = column(call, 3, first);
            self.v_threshold = column(call, 4, first);
            const period = column(call, 5, first);
            const zero: Lanes = @splat(0);
            var counters: [groups]Lanes = undefined;
            inline for (0..groups) |g| {
                if (high) self.leak[g] <<= @splat(@intCast(16 - call.fraction));
                self.period[g] = @max(period[g], zero);
                const states: @Vector(2 * lanes, i16) = call.state[2 * (first + g * lanes) ..][0 .. 2 * lanes].*;
                self.v[g], counters[g] = std.simd.deinterlace(2, states);
                self.refractory[g] = @max(counters[g], zero);
            }
            var drives: [64 * width]i16 = undefined;
            const drive_stride: usize = if (constant(call)) 0 else width;
            const inputs = .{ Input.current(call), Input.noise(call) };
            for (0..if (constant(call)) 1 else call.step_count) |step| {
                self.fill(inputs, first, width, drives[step * width ..][0..width], call.step_begin + step);
            }
            const words = self.advance(&drives, drive_stride, null, call.step_count);
            const place: @Vector(lanes, u6) = @splat(@intCast(call.first_bit));
            const earlier: Words = @splat((@as(u64, 1) << @intCast(call.first_bit)) - 1);
            inline for (0..groups) |g| {
                const begin = first + g * lanes;
                const counts = call.counts[begin..][0..lanes];
                counts.* = @as(@Vector(lanes, u32), counts.*) +% @as(@Vector(lanes, u32), @popCount(words[g]));
                if (call.record_words != 0) {
                    const out = call.words[call.word_begin + begin ..][0..lanes];
                    out.* = (@as(Words, out.*) & earlier) | words[g] << place;
                }
                // Counters at or below 0 mean the same, but the one that was given stays.
                const idle = @min(@select(i16, words[g] != @as(Words, @splat(0)), period[g], counters[g]), zero);
                const left = @select(i16, self.refractory[g] > zero, self.refractory[g], idle);
                call.state[2 * begin ..][0 .. 2 * lanes].* = std.simd.interlace(.{ self.v[g], left });
            }
        }

        /// Bring `count` neurons from `first` on through all steps.
        fn run(call: *const abi.Lif, first: usize, count: usize, past: bool) void {
            var self: Self = load(call, first, count);
            var drives: [64 * width]i16 = undefined;
            const drive_stride: usize = if (constant(call)) 0 else width;
            var rows: [width][row_length]i16 = undefined;
            var words: [width][tile_words]u64 = undefined;
            var spiked: [width]bool = @splat(false);
            const inputs = .{ Input.current(call), Input.noise(call) };
            if (constant(call)) self.fill(inputs, first, count, drives[0..width], call.step_begin);
            var tile: usize = 0;
            while (tile < call.step_count) : (tile += tile_steps) {
                const steps: usize = @min(tile_steps, call.step_count - tile);
                var begin: usize = 0;
                while (begin < steps) : (begin += 64) {
                    const part: usize = @min(64, steps - begin);
                    if (drive_stride > 0) for (0..part) |step| {
                        self.fill(inputs, first, count, drives[step * width ..][0..width], call.step_begin + tile + begin + step);
                    };
                    var trace: [64 * width]i16 = undefined;
                    const made = if (call.record_voltages != 0)
                        self.advance(&drives, drive_stride, &trace, part)
                    else
                        self.advance(&drives, drive_stride, null, part);
                    inline for (0..groups) |g| {
                        const each: [lanes]u64 = made[g];
                        for (each, words[g * lanes ..][0..lanes]) |word, *row| row[begin / 64] = word;
                    }
                    if (call.record_voltages != 0) turn(&trace, &rows, begin);
                }
                for (0..count) |i| {
                    const of_neuron = words[i][0 .. (steps + 63) / 64];
                    for (of_neuron) |word| spiked[i] = spiked[i] or word != 0;
                    recordTile(call, first + i, tile, of_neuron, rows[i][0..steps], past);
                }
                if (drive_stride == 0 and tile + steps + worth_steps < call.step_count) {
                    var cycles: [width]Cycle = undefined;
                    if (self.findCycles(call, count, &drives, &words, &cycles)) {
                        self.save(call, first, spiked[0..count]);
                        for (cycles[0..count], first..) |*cycle, index| cycle.finish(call, index, tile + steps, past);
                        return;
                    }
                }
            }
            self.save(call, first, spiked[0..count]);
        }

        /// Leave the state; `spiked` tells who fired since it was loaded.
        fn save(self: *const Self, call: *const abi.Lif, first: usize, spiked: []const bool) void {
            const v: [width]i16 = @bitCast(self.v);
            const refractory: [width]i16 = @bitCast(self.refractory);
            for (spiked, 0..) |fired, i| {
                const state = call.state + 2 * (first + i);
                const left = refractory[i];
                state[0] = v[i];
                // Counters at or below 0 mean the same, but the one that was given stays.
                const idle: i16 = if (fired) self.neurons[i].period else state[1];
                state[1] = if (left > 0) left else @min(idle, 0);
            }
        }

        /// True when every neuron is in its cycle.
        fn findCycles(self: *const Self, call: *const abi.Lif, count: usize, drives: []const i16, words: *const [width][tile_words]u64, cycles: *[width]Cycle) bool {
            const v: [width]i16 = @bitCast(self.v);
            const refractory: [width]i16 = @bitCast(self.refractory);
            for (cycles[0..count], 0..) |*cycle, i| {
                const state: Cycle.State = .{ .v = v[i], .refractory = refractory[i] };
                cycle.* = Cycle.find(call, self.neurons[i], drives[i], &words[i], state) orelse return false;
            }
            return true;
        }

        /// What current and noise add to v of each neuron in a step, exact in its low 16 bits.
        inline fn fill(self: *const Self, inputs: [2]Input, first: usize, count: usize, out: *[width]i16, step: usize) void {
            const fraction: @Vector(lanes, u5) = @splat(self.fraction);
            inline for (0..groups) |g| {
                const left = count -| g * lanes;
                const begin = first + @min(g * lanes, count - 1);
                const product = @as(Wide, inputs[0].across(begin, left, step)) * @as(Wide, self.gain[g]);
                const driven: Lanes = @truncate(product >> fraction);
                out[g * lanes ..][0..lanes].* = driven +% inputs[1].across(begin, left, step);
            }
        }

        /// 64 steps of every neuron into rows of steps.
        fn turn(trace: *const [64 * width]i16, rows: *[width][row_length]i16, begin: usize) void {
            var step: usize = 0;
            while (step < 64) : (step += piece) {
                inline for (0..groups) |g| {
                    var square: [piece]Lanes = undefined;
                    inline for (0..piece) |i| square[i] = trace[(step + i) * width + g * lanes ..][0..lanes].*;
                    inline for (transposed(square), 0..) |turned, i| {
                        const pieces: [lanes / piece]@Vector(piece, i16) = @bitCast(turned);
                        inline for (pieces, 0..) |steps, p| {
                            rows[g * lanes + p * piece + i][begin + step ..][0..piece].* = steps;
                        }
                    }
                }
            }
        }
    };
}

/// One neuron: the next step is one product, one sum and one shift of 64 bits away, and whether it
/// fired is left to the branch predictor.
fn single(call: *const abi.Lif, index: usize, past: bool) void {
    const neuron: Neuron = .load(call, index);
    const state = call.state + 2 * index;
    const current: Input = .current(call);
    const noise: Input = .noise(call);
    const data_width = call.data_width;
    const fraction: u5 = @intCast(call.fraction);
    const up: u6 = @intCast(64 - data_width - fraction);
    const down: u6 = @intCast(64 - data_width);
    const rest: i64 = neuron.v_rest;
    const threshold: i64 = neuron.v_threshold;
    const decay = ((@as(i64, 1) << fraction) - neuron.leak_k) << up;
    // From `lowest` to `highest` v does not fire, and v_rest - v needs no truncation.
    const half = @as(i64, 1) << @intCast(@min(2 * data_width, 16) - 1);
    const lowest = rest - half + 1;
    const highest = @min(threshold - 1, rest + half);
    var terms: [tile_steps]i64 = undefined;
    var trace: [tile_steps]i16 = undefined;
    var v: i64 = state[0];
    var refractory: i16 = state[1];
    const call_begin: usize = call.step_begin;
    const term_stride: usize = @intFromBool(!constant(call));
    var tile: usize = 0;
    while (tile < call.step_count) : (tile += tile_steps) {
        const steps: usize = @min(tile_steps, call.step_count - tile);
        const begin = call_begin + tile;
        for (terms[0..if (term_stride > 0) steps else 1], 0..) |*term, step| {
            const drive: i64 = driveOf(&neuron, fraction, current.at(index, begin + step), noise.at(index, begin + step));
            term.* = (rest * neuron.leak_k + (drive << fraction)) << up;
        }
        var words: [tile_words]u64 = @splat(0);
        var step: usize = 0;
        while (step < steps) : (step += 1) {
            if (refractory > 0) {
                refractory -= 1;
                v = rest;
            } else {
                if (v >= lowest and v <= rest + half) {
                    while (true) {
                        v = (v *% decay +% terms[step * term_stride]) >> down;
                        if (v < lowest or v > highest or step + 1 == steps) break;
                        trace[step] = @truncate(v);
                        step += 1;
                    }
                } else {
                    const drive = driveOf(&neuron, fraction, current.at(index, begin + step), noise.at(index, begin + step));
                    v = neuron.reached(call, @truncate(v), drive);
                }
                if (v >= threshold) {
                    words[step / 64] |= @as(u64, 1) << @truncate(step);
                    v = neuron.v_reset;
                    refractory = neuron.period;
                }
            }
            trace[step] = @truncate(signed(@truncate(v), data_width));
        }
        recordTile(call, index, tile, words[0 .. (steps + 63) / 64], trace[0..steps], past);
        state[0] = @truncate(v);
        state[1] = refractory;
        if (term_stride == 0 and tile + steps + worth_steps < call.step_count) {
            const drive = driveOf(&neuron, fraction, current.at(index, begin), noise.at(index, begin));
            if (Cycle.find(call, neuron, drive, &words, .{ .v = state[0], .refractory = refractory })) |cycle| {
                return cycle.finish(call, index, tile + steps, past);
            }
        }
    }
}

/// True when every leak_k, shifted so that the higher half of a product is the shifted product, fits.
fn takesHigherHalf(call: *const abi.Lif) bool {
    if (call.data_width != 16 or call.fraction > 16 or call.fraction == 0) return false;
    const limit = @as(i32, 1) << @intCast(call.fraction - 1);
    const count: usize = if (call.parameter_stride > 1) call.neuron_count else 1;
    for (call.parameters[0..count]) |leak_k| {
        if (leak_k >= limit or leak_k < -limit) return false;
    }
    return true;
}

fn runAll(comptime high: bool, call: *const abi.Lif, past: bool) void {
    const recorded = call.record_spikes + call.record_voltages;
    const short = call.step_count <= 64 and recorded == 0 and (call.record_words == 0 or call.row_words == 1);
    var first: usize = 0;
    while (call.neuron_count - first > 2) {
        const left = call.neuron_count - first;
        // The general kernel has work enough in two vectors, and is long to compile.
        if (high and left > 2 * lanes) {
            const count: usize = @min(left, 4 * lanes);
            if (short and count == 4 * lanes) Kernel(4, high).runBlock(call, first) else Kernel(4, high).run(call, first, count, past);
            first += count;
        } else {
            const count: usize = @min(left, 2 * lanes);
            if (short and count == 2 * lanes) Kernel(2, high).runBlock(call, first) else Kernel(2, high).run(call, first, count, past);
            first += count;
        }
    }
    while (first < call.neuron_count) : (first += 1) single(call, first, past);
}

pub fn lif(call: *const abi.Lif) callconv(.c) void {
    const past = past_bytes < @as(u64, call.neuron_count) * call.step_count * (4 * call.record_spikes + 2 * call.record_voltages);
    if (takesHigherHalf(call)) runAll(true, call, past) else runAll(false, call, past);
    if (past and builtin.cpu.arch == .x86_64) asm volatile ("sfence" ::: .{ .memory = true });
}

/// Records larger than this do not stay in a cache.
const past_bytes = 4 << 20;

test "numbers of few bits keep their sign" {
    try std.testing.expectEqual(-1, signed(1, 1));
    try std.testing.expectEqual(0, signed(2, 1));
    try std.testing.expectEqual(-0x8000, signed(0x8000, 16));
    try std.testing.expectEqual(0x7fff, signed(-0x8001, 16));
    try std.testing.expectEqual(-5, signed(-5, 32));
}

test "squares of eight vectors are turned" {
    var rows: [piece]Lanes = undefined;
    for (&rows, 0..) |*row, r| {
        var values: [lanes]i16 = undefined;
        for (&values, 0..) |*value, i| value.* = @intCast(100 * r + i);
        row.* = values;
    }
    for (transposed(rows), 0..) |column, c| {
        const values: [lanes]i16 = column;
        for (values, 0..) |value, i| {
            try std.testing.expectEqual(@as(i16, @intCast(100 * (i % piece) + i / piece * piece + c)), value);
        }
    }
}

test "a pattern is repeated over any length, past the caches or not" {
    for ([_]usize{ 1, 3, 64, 700, 1025 }) |period| {
        for ([_]usize{ 0, 1, 63, 1024, 2047, 5000 }) |length| {
            for ([_]bool{ false, true }) |past| {
                var pattern: [pattern_length]i16 = undefined;
                for (pattern[0..period], 0..) |*value, i| value.* = @intCast(i);
                var out: [5002]i16 = @splat(-7);
                repeat(i16, out[1..], length, &pattern, period, past);
                try std.testing.expectEqual(-7, out[0]);
                try std.testing.expectEqual(-7, out[1 + length]);
                for (out[1..][0..length], 0..) |value, i| try std.testing.expectEqual(@as(i16, @intCast(i % period)), value);
            }
        }
    }
}
