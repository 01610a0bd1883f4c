//! How the work of each operation is divided among threads: by output, so that the result
//! does not depend on the division. `units` can be done apart, `part` is the call for a range
//! of them, and `nanoseconds` estimates the whole on one thread.

const std = @import("std");
const abi = @import("abi.zig");

pub const philox = struct {
    pub fn units(call: *const abi.Philox) u64 {
        return call.block_count;
    }
    pub fn nanoseconds(call: *const abi.Philox) u64 {
        return 5 * @as(u64, call.block_count);
    }
    pub fn part(call: *const abi.Philox, begin: u64, end: u64) abi.Philox {
        var p = call.*;
        p.block_count = @intCast(end - begin);
        p.counters += 4 * begin;
        p.keys += 2 * begin;
        p.words += 4 * begin;
        return p;
    }
};

pub const encode = struct {
    fn bySample(call: *const abi.Encode) bool {
        return call.sample_count > 1;
    }
    pub fn units(call: *const abi.Encode) u64 {
        return if (bySample(call)) call.sample_count else call.stream_count;
    }
    pub fn nanoseconds(call: *const abi.Encode) u64 {
        return 5 * @as(u64, call.sample_count) * call.stream_count * call.word_count;
    }
    pub fn part(call: *const abi.Encode, begin: u64, end: u64) abi.Encode {
        var p = call.*;
        const first_row = if (bySample(call)) begin * call.stream_count else begin;
        p.thresholds += call.threshold_offset + first_row;
        p.threshold_offset = 0;
        p.words += first_row * call.word_count;
        if (bySample(call)) {
            p.sample_count = @intCast(end - begin);
            p.first_sample +%= @intCast(begin);
        } else {
            p.stream_count = @intCast(end - begin);
            p.first_stream +%= @intCast(begin);
        }
        return p;
    }
};

pub const compare = struct {
    fn bySample(call: *const abi.Compare) bool {
        return call.sample_count > 1;
    }
    pub fn units(call: *const abi.Compare) u64 {
        return if (bySample(call)) call.sample_count else call.stream_count;
    }
    pub fn nanoseconds(call: *const abi.Compare) u64 {
        return 4 * @as(u64, call.sample_count) * call.stream_count * call.word_count;
    }
    pub fn part(call: *const abi.Compare, begin: u64, end: u64) abi.Compare {
        var p = call.*;
        const first_row = if (bySample(call)) begin * call.stream_count else begin;
        p.thresholds += call.threshold_offset + first_row;
        p.threshold_offset = 0;
        p.words += first_row * call.word_count;
        if (bySample(call)) {
            p.sample_count = @intCast(end - begin);
        } else {
            p.stream_count = @intCast(end - begin);
            p.places += 2 * begin * call.place_stride;
        }
        return p;
    }
};

pub const dense = struct {
    /// Multiples of every register tile, so that a division costs no partial ones.
    const samples = 12;
    const neurons = 4;

    pub fn units(call: *const abi.Dense) u64 {
        if (call.sample_count > 1) return (@as(u64, call.sample_count) + samples - 1) / samples;
        return (@as(u64, call.neuron_count) + neurons - 1) / neurons;
    }
    pub fn nanoseconds(call: *const abi.Dense) u64 {
        return @intCast(@as(u128, call.sample_count) * call.neuron_count * (call.word_end -| call.word_begin) / 6);
    }
    pub fn part(call: *const abi.Dense, begin: u64, end: u64) abi.Dense {
        var p = call.*;
        p.counts += call.count_offset;
        p.count_offset = 0;
        if (call.sample_count > 1) {
            const first = begin * samples;
            p.sample_count = @intCast(@min(end * samples, call.sample_count) - first);
            p.inputs += first * call.row_words;
            p.counts += first * call.count_stride;
        } else {
            const first = begin * neurons;
            p.neuron_count = @intCast(@min(end * neurons, call.neuron_count) - first);
            p.weights += first * call.row_words;
            p.counts += first;
        }
        return p;
    }
};

pub const prefix = struct {
    fn inputs(call: *const abi.Prefix) u64 {
        return call.input_end -| call.input_begin;
    }
    pub fn units(call: *const abi.Prefix) u64 {
        return if (call.sample_count > 1) call.sample_count else inputs(call);
    }
    pub fn nanoseconds(call: *const abi.Prefix) u64 {
        const bits = @as(u64, call.sample_count) * inputs(call) * call.length;
        return if (call.order_bits == 0) bits / 64 else bits / 8;
    }
    pub fn part(call: *const abi.Prefix, begin: u64, end: u64) abi.Prefix {
        var p = call.*;
        if (call.sample_count > 1) {
            const first = begin * call.input_count;
            p.sample_count = @intCast(end - begin);
            p.words += first * ((call.length + 63) / 64);
            p.entries += first * (call.length / 32 + 1);
        } else {
            p.input_begin = @intCast(call.input_begin + begin);
            p.input_end = @intCast(call.input_begin + end);
            p.order += begin * call.order_stride;
        }
        return p;
    }
};

pub const permute = struct {
    fn inputs(call: *const abi.Permute) u64 {
        return call.input_end -| call.input_begin;
    }
    pub fn units(call: *const abi.Permute) u64 {
        return if (call.sample_count > 1) call.sample_count else inputs(call);
    }
    pub fn nanoseconds(call: *const abi.Permute) u64 {
        return @as(u64, call.sample_count) * inputs(call) * call.width / 24;
    }
    pub fn part(call: *const abi.Permute, begin: u64, end: u64) abi.Permute {
        var p = call.*;
        if (call.sample_count > 1) {
            const first = begin * call.input_count * ((call.length + 63) / 64);
            p.sample_count = @intCast(end - begin);
            p.words += first;
            p.permuted += first;
        } else {
            p.input_begin = @intCast(call.input_begin + begin);
            p.input_end = @intCast(call.input_begin + end);
            p.masks += begin * (call.index_bits + 8) * (call.width / 64);
        }
        return p;
    }
};

pub const lookup = struct {
    /// A multiple of every vector length, and enough for a part to pay for making the tables again.
    const neurons = 128;

    /// Of one sample every part makes all tables.
    pub fn partsPerThread(call: *const abi.Lookup) u32 {
        return if (call.sample_count > 1) 4 else 1;
    }
    pub fn units(call: *const abi.Lookup) u64 {
        if (call.sample_count > 1) return call.sample_count;
        return (@as(u64, call.neuron_count) + neurons - 1) / neurons;
    }
    pub fn nanoseconds(call: *const abi.Lookup) u64 {
        return @intCast(@as(u128, call.sample_count) * call.neuron_count * (call.input_end -| call.input_begin) / 4);
    }
    pub fn part(call: *const abi.Lookup, begin: u64, end: u64) abi.Lookup {
        var p = call.*;
        p.counts += call.count_offset;
        p.count_offset = 0;
        if (call.sample_count > 1) {
            p.sample_count = @intCast(end - begin);
            p.entries += begin * call.input_count * (call.length / 32 + 1);
            p.counts += begin * call.count_stride;
        } else {
            const first = begin * neurons;
            p.neuron_count = @intCast(@min(end * neurons, call.neuron_count) - first);
            p.ranks += first * call.rank_bits / 32;
            p.counts += first;
        }
        return p;
    }
};

/// A single stream is divided by segments, several by stream.
pub const count = struct {
    pub fn units(call: *const abi.Count) u64 {
        return if (call.stream_count == 1) call.segment_count else call.stream_count;
    }
    pub fn nanoseconds(call: *const abi.Count) u64 {
        return @as(u64, call.stream_count) * call.word_count / 4;
    }
    pub fn part(call: *const abi.Count, begin: u64, end: u64) abi.Count {
        var p = call.*;
        if (call.stream_count == 1) {
            const first = @min(begin * call.segment_words, call.word_count);
            const last = @min(end * call.segment_words, call.word_count);
            p.segment_count = @intCast(end - begin);
            p.word_count = @intCast(last - first);
            p.words += first;
            p.counts += begin;
        } else {
            p.stream_count = @intCast(end - begin);
            p.words += begin * call.word_count;
            p.counts += begin * call.segment_count;
        }
        return p;
    }
};

pub const bitwise = struct {
    pub fn units(call: *const abi.Bitwise) u64 {
        return call.stream_count;
    }
    pub fn nanoseconds(call: *const abi.Bitwise) u64 {
        return @as(u64, call.stream_count) * call.word_count / 2;
    }
    pub fn part(call: *const abi.Bitwise, begin: u64, end: u64) abi.Bitwise {
        var p = call.*;
        p.stream_count = @intCast(end - begin);
        p.left += call.source_word + begin * call.word_count;
        p.right += call.source_word + begin * call.word_count;
        p.result += call.first_word + begin * call.word_count;
        p.source_word = 0;
        p.first_word = 0;
        return p;
    }
};

pub const accumulate = struct {
    /// Streams of a part, so that vectors of all tiers fill it.
    const streams = 64;

    pub fn units(call: *const abi.Accumulate) u64 {
        return (@as(u64, call.stream_count) + streams - 1) / streams;
    }
    pub fn nanoseconds(call: *const abi.Accumulate) u64 {
        return @as(u64, call.stream_count) *| (call.word_end -| call.word_begin) *| (8 + @as(u64, call.input_count));
    }
    pub fn part(call: *const abi.Accumulate, begin: u64, end: u64) abi.Accumulate {
        var p = call.*;
        const first = begin * streams;
        p.stream_count = @intCast(@min(end * streams, call.stream_count) - first);
        p.inputs += first * call.word_count;
        p.numbers += first;
        p.result += first * call.word_count;
        return p;
    }
};

pub const conditional = struct {
    pub fn units(call: *const abi.Conditional) u64 {
        return call.stream_count;
    }
    pub fn nanoseconds(call: *const abi.Conditional) u64 {
        return 2 * @as(u64, call.stream_count) * (call.word_end -| call.word_begin);
    }
    pub fn part(call: *const abi.Conditional, begin: u64, end: u64) abi.Conditional {
        var p = call.*;
        p.stream_count = @intCast(end - begin);
        p.first_input = @intCast(call.first_input + begin);
        p.first_weight = @intCast(call.first_weight + begin);
        p.places += 2 * begin;
        return p;
    }
};

pub const delay = struct {
    pub fn units(call: *const abi.Delay) u64 {
        return call.stream_count;
    }
    pub fn nanoseconds(call: *const abi.Delay) u64 {
        return @as(u64, call.stream_count) * call.word_count / 2;
    }
    pub fn part(call: *const abi.Delay, begin: u64, end: u64) abi.Delay {
        var p = call.*;
        p.stream_count = @intCast(end - begin);
        p.words += begin * call.word_count;
        p.result += begin * call.word_count;
        return p;
    }
};

pub const pack = Rows(abi.Pack);
pub const unpack = Rows(abi.Unpack);

/// Calls between rows of bits and rows of words: a single stream is divided by words, several
/// by stream.
fn Rows(comptime Call: type) type {
    return struct {
        pub fn units(call: *const Call) u64 {
            return if (call.stream_count == 1) call.word_count else call.stream_count;
        }
        pub fn nanoseconds(call: *const Call) u64 {
            return @as(u64, call.stream_count) * call.word_count;
        }
        pub fn part(call: *const Call, begin: u64, end: u64) Call {
            var p = call.*;
            p.words += call.first_word;
            p.first_word = 0;
            if (call.stream_count == 1) {
                p.word_count = @intCast(end - begin);
                if (end < call.word_count) p.tail_bits = 64;
                p.bits += 64 * begin;
                p.words += begin;
            } else {
                p.stream_count = @intCast(end - begin);
                p.bits += begin * (64 * @as(u64, call.word_count) -| 64 + call.tail_bits);
                p.words += begin * call.word_count;
            }
            return p;
        }
    };
}

pub const activation = struct {
    pub fn units(call: *const abi.Activation) u64 {
        return call.element_count;
    }
    pub fn nanoseconds(call: *const abi.Activation) u64 {
        return 2 * @as(u64, call.element_count);
    }
    pub fn part(call: *const abi.Activation, begin: u64, end: u64) abi.Activation {
        var p = call.*;
        p.element_count = @intCast(end - begin);
        p.counts += begin;
        p.thresholds += begin;
        return p;
    }
};

pub const lif = struct {
    /// At most so many in a part: a few vectors of every tier, as equal as they can be.
    const neurons = 64;

    pub fn units(call: *const abi.Lif) u64 {
        return (@as(u64, call.neuron_count) + neurons - 1) / neurons;
    }
    pub fn nanoseconds(call: *const abi.Lif) u64 {
        return @as(u64, call.neuron_count) * call.step_count / 4;
    }
    pub fn part(call: *const abi.Lif, begin: u64, end: u64) abi.Lif {
        var p = call.*;
        const first = begin * call.neuron_count / units(call);
        p.neuron_count = @intCast(end * call.neuron_count / units(call) - first);
        if (call.parameter_stride > 1) p.parameters += first;
        p.state += 2 * first;
        p.currents += first * call.current_neuron_stride;
        p.noises += first * call.noise_neuron_stride;
        p.words += first * call.row_words;
        p.spikes += first * call.spike_stride;
        p.voltages += first * call.voltage_stride;
        p.counts += first;
        return p;
    }
};

/// Divided by step, where no two steps share a slot of the inbox.
pub const drive = struct {
    pub fn units(call: *const abi.Drive) u64 {
        return if (call.step_count <= call.slot_count) call.step_count else 1;
    }
    pub fn nanoseconds(call: *const abi.Drive) u64 {
        return @as(u64, call.neuron_count) * call.step_count / 8;
    }
    pub fn part(call: *const abi.Drive, begin: u64, end: u64) abi.Drive {
        var p = call.*;
        if (call.step_count > call.slot_count) return p;
        p.step_count = @intCast(end - begin);
        p.step_offset += @intCast(begin);
        p.drives += begin * call.row_stride;
        return p;
    }
};

/// Divided by step where each has a slot of its own, else by target: then every part looks at all spikes.
pub const propagate = struct {
    /// Synapses of a row that a part should have, so that finding where it begins does not count.
    const row_part = 512;

    fn byStep(call: *const abi.Propagate) bool {
        return call.step_count > 1 and call.step_count <= call.slot_count;
    }
    /// Targets that go together.
    fn targets(call: *const abi.Propagate) u64 {
        const all: u64 = call.target_count;
        const few = if (call.dense != 0) 0 else all * row_part / @max(1, call.longest_row);
        return (@max(64, @min(few, all)) + 63) / 64 * 64;
    }
    pub fn units(call: *const abi.Propagate) u64 {
        if (byStep(call)) return call.step_count;
        return (@as(u64, call.target_end -| call.target_begin) + targets(call) - 1) / targets(call);
    }
    pub fn nanoseconds(call: *const abi.Propagate) u64 {
        return call.synapse_count / 64;
    }
    pub fn part(call: *const abi.Propagate, begin: u64, end: u64) abi.Propagate {
        var p = call.*;
        if (byStep(call)) {
            p.step_offset +%= @intCast(begin);
            p.first_bit += @intCast(begin);
            p.step_count = @intCast(end - begin);
        } else {
            p.target_begin = @intCast(call.target_begin + targets(call) * begin);
            p.target_end = @intCast(@min(call.target_begin + targets(call) * end, call.target_end));
        }
        return p;
    }
};

pub const trace = struct {
    /// Of a part, so that vectors of all tiers fill it.
    const neurons = 64;

    pub fn units(call: *const abi.Trace) u64 {
        return (@as(u64, call.neuron_count) + neurons - 1) / neurons;
    }
    pub fn nanoseconds(call: *const abi.Trace) u64 {
        return @as(u64, call.neuron_count) * call.step_count / 4;
    }
    pub fn part(call: *const abi.Trace, begin: u64, end: u64) abi.Trace {
        var p = call.*;
        const first = begin * neurons;
        p.neuron_count = @intCast(@min(end * neurons, call.neuron_count) - first);
        p.words += first * call.word_stride;
        p.state += first;
        p.traces += first;
        return p;
    }
};

/// Dense synapses are divided by source, others anywhere; the inbox belongs to all parts.
pub const stdp = struct {
    /// Of a part, so that no two write to one line of weights.
    const synapses = 64;

    fn size(call: *const abi.Stdp) u64 {
        return if (call.dense != 0) @max(call.target_count, 1) else synapses;
    }
    pub fn units(call: *const abi.Stdp) u64 {
        return (@as(u64, call.synapse_count) + size(call) - 1) / size(call);
    }
    pub fn nanoseconds(call: *const abi.Stdp) u64 {
        return call.synapse_count / 2;
    }
    pub fn part(call: *const abi.Stdp, begin: u64, end: u64) abi.Stdp {
        var p = call.*;
        const first = begin * size(call);
        p.synapse_count = @intCast(@min(end * size(call), call.synapse_count) - first);
        p.weights += first;
        if (call.dense != 0) {
            p.source_words += begin * call.source_word_stride;
            p.source_traces += begin;
        } else {
            p.sources += first;
            p.targets += first;
        }
        return p;
    }
};

pub const poisson = struct {
    /// Blocks of 4 neurons in a unit: a multiple of what vectors of every tier hold together.
    const unit = 32;

    fn blocks(call: *const abi.Poisson) u64 {
        return call.block_end -| call.block_begin;
    }
    pub fn units(call: *const abi.Poisson) u64 {
        return (blocks(call) + unit - 1) / unit;
    }
    pub fn nanoseconds(call: *const abi.Poisson) u64 {
        return blocks(call) *| call.step_count *| (16 + @as(u64, call.entry_count)) / 16;
    }
    pub fn part(call: *const abi.Poisson, begin: u64, end: u64) abi.Poisson {
        var p = call.*;
        p.block_begin = @intCast(call.block_begin + begin * unit);
        p.block_end = @intCast(@min(call.block_begin + end * unit, call.block_end));
        return p;
    }
};

pub const fsm = struct {
    /// Bits of a unit, so that making tables for it does not count.
    const unit_bits = 1 << 18;

    fn streams(call: *const abi.Fsm) u64 {
        return unit_bits / (64 * @as(u64, @max(1, call.word_end -| call.word_begin))) + 1;
    }
    pub fn units(call: *const abi.Fsm) u64 {
        return (@as(u64, call.stream_count) + streams(call) - 1) / streams(call);
    }
    pub fn nanoseconds(call: *const abi.Fsm) u64 {
        return @as(u64, call.stream_count) * (call.word_end -| call.word_begin) * 8;
    }
    pub fn part(call: *const abi.Fsm, begin: u64, end: u64) abi.Fsm {
        var p = call.*;
        const first = begin * streams(call);
        const words = first * call.word_count;
        p.stream_count = @intCast(@min(end * streams(call), call.stream_count) - first);
        p.first += words;
        if (call.input_count > 1) p.second += words;
        if (call.input_count > 2) p.third += words;
        p.states += first;
        p.result += words;
        if (call.output_count > 1) p.other += words;
        return p;
    }
};

test "parts stay within buffers that are just long enough for the call" {
    @setEvalBranchQuota(100_000);
    var random: std.Random.DefaultPrng = .init(6);
    inline for (comptime std.meta.fieldNames(abi.Table)) |op| {
        const Call = @typeInfo(@typeInfo(@typeInfo(@FieldType(abi.Table, op)).pointer.child).@"fn".param_types[0].?).pointer.child;
        const Division = @field(@This(), op);
        var made: usize = 0;
        for (0..100_000) |_| {
            if (made == 1000) break;
            var call: Call = undefined;
            inline for (comptime std.meta.fieldNames(Call)) |name| {
                switch (@typeInfo(@FieldType(Call, name))) {
                    .pointer => @field(call, name) = @ptrFromInt(1 << 40),
                    else => @field(call, name) = if (@FieldType(Call, name) == u64) 1 << 32 else 1 + random.random().uintLessThan(u32, if (random.random().boolean()) 3 else 200),
                }
            }
            limited(op, &call, random.random());
            if (call.check() == .bad_parameters) continue;
            made += 1;
            inline for (comptime std.meta.fieldNames(Call)) |name| {
                if (@FieldType(Call, name) == u64) shorten(&call, name);
            }
            const units = Division.units(&call);
            const chunks = 1 + random.random().uintLessThan(u64, 9);
            for (0..chunks) |chunk| {
                const begin = units * chunk / chunks;
                const end = units * (chunk + 1) / chunks;
                if (begin == end) continue;
                var some = Division.part(&call, begin, end);
                inline for (comptime std.meta.fieldNames(Call)) |name| {
                    if (@typeInfo(@FieldType(Call, name)) == .pointer) {
                        @field(some, name ++ "_len") -= @field(some, name) - @field(call, name);
                    }
                }
                try std.testing.expectEqual(abi.Status.ok, some.check());
            }
        }
        try std.testing.expectEqual(1000, made);
    }
}

/// Parameters as callers give them where others are almost never met, but for rows that keep their stride when a part begins within them:
/// parameters of several neurons, traces of dense synapses.
fn limited(comptime op: []const u8, call: anytype, random: std.Random) void {
    if (comptime std.mem.eql(u8, op, "prefix")) call.order_bits = 16 * random.uintLessThan(u32, 3);
    if (comptime std.mem.eql(u8, op, "permute")) {
        call.index_bits = 9 + random.uintLessThan(u32, 5);
        call.width = @as(u32, 1) << @intCast(call.index_bits);
    }
    if (comptime std.mem.eql(u8, op, "lookup")) call.rank_bits = 16 + 16 * random.uintLessThan(u32, 2);
    if (comptime std.mem.eql(u8, op, "propagate")) {
        call.dense = random.uintLessThan(u32, 2);
        if (call.dense == 1) call.synapse_count = call.source_count * call.target_count;
    }
    if (comptime std.mem.eql(u8, op, "stdp")) call.dense = 0;
    if (comptime std.mem.eql(u8, op, "lif")) {
        call.parameter_stride = 1;
        inline for (.{ "record_words", "record_spikes", "record_voltages" }) |name| @field(call, name) = 1;
    }
    if (comptime std.mem.eql(u8, op, "count")) call.segment_count = (call.word_count + call.segment_words - 1) / call.segment_words;
}

/// The least length that fits the call.
fn shorten(call: anytype, comptime name: []const u8) void {
    var low: u64 = 0;
    var high = @field(call, name);
    while (low < high) {
        @field(call, name) = (low + high) / 2;
        if (call.check() == .ok) high = (low + high) / 2 else low = (low + high) / 2 + 1;
    }
    @field(call, name) = low;
}
