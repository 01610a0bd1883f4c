//! fsm: finite-state machines that read one to three bitstreams and write one or two.
//! Computes:  for every stream and bit t of the words word_begin .. word_end, with the state s of the stream,
//!              entry = table[s << input_count | bit t of first + 2 * of second + 4 * of third]
//!              s = entry & 0xffff, bit t of result = bit 16 of entry, bit t of other = bit 24
//! Layout:    second, third and other are not touched where input_count or output_count leaves them out
//! Padding:   bits past the last one of a stream are 0 and change no state
//! Limits:    table entries and states are below state_count, at most 2^16
//! Exactness: integer; equals shaders/fsm.wgsl bit for bit
//!
//! A state depends on the one before, so a bit costs the latency of a load. Where the machine is
//! small, a table of several bits at once is made from the given one by doubling: a look-up then
//! advances by that many bits. Neighbouring streams fill the time of each other's loads; those of the
//! large machines that read bit by bit are gathered, for many streams in vectors.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");

/// Entries of a table of several bits at once: it stays in the first-level cache.
const most_entries = 1 << 13;
/// Bits that a call should have for each entry, so that making a table pays.
const bits_per_entry = 8;
/// Streams that are advanced side by side.
const neighbours = 4;

/// AVX2 has gathers as well, but emulators of it fail at them. The compiler refuses the intrinsic in debug mode.
const gathers = builtin.mode != .debug and builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512f);
const lanes = 16;
const Lanes = @Vector(lanes, u32);

extern fn @"llvm.x86.avx512.mask.gather.dpi.512"(Lanes, [*]const u32, Lanes, @Vector(lanes, bool), i32) callconv(.auto) Lanes;

/// Entries of a table at places below 2^31.
inline fn gather(table: [*]const u32, places: Lanes) Lanes {
    const all: @Vector(lanes, bool) = @splat(true);
    return @"llvm.x86.avx512.mask.gather.dpi.512"(@splat(0), table, places, all, 4);
}

/// Look-ups of `steps` bits of each of `inputs` streams. Row r of a state holds the bits of the
/// first stream in its low `steps` bits, then those of the second and third. An entry is the
/// place of the next state's rows (with one bit at once: the state), and from bits 16 and 24 up
/// the bits that are written.
fn Machine(comptime inputs: usize, comptime steps: usize) type {
    return struct {
        const row_bits = inputs * steps;
        const wide = steps > 1;
        const mask = (1 << steps) - 1;

        /// A table from that of half as many bits at once.
        fn double(table: []u32, half: anytype, state_count: usize) void {
            const part = steps / 2;
            for (0..state_count) |begin| {
                for (0..1 << row_bits) |row| {
                    var rows: [2]usize = .{ 0, 0 };
                    inline for (0..inputs) |input| {
                        inline for (0..2) |k| {
                            const bits = row >> (input * steps + k * part) & ((1 << part) - 1);
                            rows[k] |= bits << (input * part);
                        }
                    }
                    const Half = Machine(inputs, part);
                    const early = half[Half.place(@intCast(begin)) + rows[0]];
                    const late = half[Half.next(early) + rows[1]];
                    const written = early >> 16 | late >> 16 << part;
                    table[begin << row_bits | row] = Half.state(late) << row_bits | written << 16;
                }
            }
        }

        /// Where the rows of a state begin.
        inline fn place(given: u32) usize {
            return @as(usize, given) << row_bits;
        }
        /// Where the rows of the state after an entry begin.
        inline fn next(entry: u32) usize {
            return if (wide) entry & 0xffff else place(entry & 0xffff);
        }
        /// The state after an entry.
        inline fn state(entry: u32) u32 {
            return if (wide) (entry & 0xffff) >> row_bits else entry & 0xffff;
        }

        /// Every stream of a call by all of its words.
        fn run(call: *const abi.Fsm, table: [*]const u32) void {
            if (call.output_count > 1) streams(2, call, table) else streams(1, call, table);
        }

        fn streams(comptime outputs: usize, call: *const abi.Fsm, table: [*]const u32) void {
            const stream_count: usize = call.stream_count;
            var first: usize = 0;
            if (gathers and !wide) {
                inline for (.{ 4, 2 }) |groups| {
                    while (first + groups * lanes <= stream_count) : (first += groups * lanes) {
                        gathered(groups, outputs, call, table, first);
                    }
                }
            }
            while (first + neighbours <= stream_count) : (first += neighbours) {
                advance(neighbours, outputs, call, table, first);
            }
            while (first < stream_count) : (first += 1) advance(1, outputs, call, table, first);
        }

        /// Some vectors of streams by all words of the call, bit by bit.
        fn gathered(
            comptime groups: usize,
            comptime outputs: usize,
            call: *const abi.Fsm,
            table: [*]const u32,
            first: usize,
        ) void {
            const word_count: usize = call.word_count;
            const sources = [_][*]const u64{ call.first, call.second, call.third };
            const targets = [_][*]u64{ call.result, call.other };
            var now: [groups]Lanes = undefined;
            for (&now, 0..) |*group, g| group.* = call.states[first + g * lanes ..][0..lanes].*;
            const whole = if (call.tail_bits == 64) word_count else word_count -| 1;
            // A call of no words may begin behind the last whole one.
            for (@min(call.word_begin, whole)..@min(call.word_end, whole)) |word| {
                const at = first * word_count + word;
                var read: [inputs][groups][2][lanes]u32 = undefined;
                inline for (0..inputs) |input| {
                    for (0..groups) |g| {
                        for (0..lanes) |lane| {
                            const bits = sources[input][at + (g * lanes + lane) * word_count];
                            read[input][g][0][lane] = @truncate(bits);
                            read[input][g][1][lane] = @truncate(bits >> 32);
                        }
                    }
                }
                var written: [outputs][groups][2][lanes]u32 = undefined;
                inline for (0..2) |half| {
                    var bits: [inputs][groups]Lanes = undefined;
                    inline for (0..inputs) |input| {
                        inline for (0..groups) |g| bits[input][g] = read[input][g][half];
                    }
                    var made: [outputs][groups]Lanes = @splat(@splat(@splat(0)));
                    for (0..32) |_| {
                        inline for (0..groups) |g| {
                            var row = now[g] << @splat(inputs);
                            inline for (0..inputs) |input| {
                                row |= (bits[input][g] & @as(Lanes, @splat(1))) << @splat(input);
                                bits[input][g] >>= @splat(1);
                            }
                            const entry = gather(table, row);
                            now[g] = entry & @as(Lanes, @splat(0xffff));
                            inline for (0..outputs) |output| {
                                const bit = (entry << @splat(15 - 8 * output)) & @as(Lanes, @splat(1 << 31));
                                made[output][g] = (made[output][g] >> @splat(1)) | bit;
                            }
                        }
                    }
                    inline for (0..outputs) |output| {
                        inline for (0..groups) |g| written[output][g][half] = made[output][g];
                    }
                }
                inline for (0..outputs) |output| {
                    for (0..groups) |g| {
                        for (0..lanes) |lane| {
                            const low, const high = .{ written[output][g][0][lane], written[output][g][1][lane] };
                            targets[output][at + (g * lanes + lane) * word_count] = low | @as(u64, high) << 32;
                        }
                    }
                }
            }
            for (now, 0..) |group, g| call.states[first + g * lanes ..][0..lanes].* = group;
            if (whole < call.word_begin or call.word_end <= whole) return;
            for (call.states[first..][0 .. groups * lanes], 0..) |*state_of_stream, k| {
                const at = (first + k) * word_count + whole;
                var read: [inputs]u64 = undefined;
                inline for (0..inputs) |input| read[input] = sources[input][at];
                var written: [outputs]u64 = @splat(0);
                state_of_stream.* = tail(outputs, call.table, &read, &written, state_of_stream.*, call.tail_bits);
                inline for (0..outputs) |output| targets[output][at] = written[output];
            }
        }

        /// `width` streams by all words of the call.
        fn advance(
            comptime width: usize,
            comptime outputs: usize,
            call: *const abi.Fsm,
            table: [*]const u32,
            first: usize,
        ) void {
            const word_count: usize = call.word_count;
            const tail_bits = call.tail_bits;
            const sources = .{ call.first, call.second, call.third };
            const targets = .{ call.result, call.other };
            const given = call.table;
            const states = call.states[first..][0..width];
            var rows: [width]usize = undefined;
            for (&rows, states) |*to, from| to.* = place(from);
            for (call.word_begin..call.word_end) |word| {
                const at = first * word_count + word;
                var read: [width][inputs]u64 = undefined;
                inline for (0..width) |k| {
                    inline for (0..inputs) |input| read[k][input] = sources[input][at + k * word_count];
                }
                var written: [width][outputs]u64 = @splat(@splat(0));
                if (word + 1 < word_count or tail_bits == 64) {
                    for (0..64 / steps) |_| {
                        inline for (0..width) |k| {
                            inline for (0..inputs) |input| rows[k] += (read[k][input] & mask) << (input * steps);
                            const entry = scalar(table[rows[k]]);
                            rows[k] = next(entry);
                            inline for (&read[k]) |*bits| bits.* >>= steps;
                            inline for (&written[k], 0..) |*bits, output| {
                                bits.* = bits.* >> steps | @as(u64, entry >> (16 + 8 * output)) << (64 - steps);
                            }
                        }
                    }
                } else for (0..width) |k| {
                    rows[k] = place(tail(outputs, given, &read[k], &written[k], @intCast(rows[k] >> row_bits), tail_bits));
                }
                inline for (0..width) |k| {
                    inline for (0..outputs) |output| targets[output][at + k * word_count] = written[k][output];
                }
            }
            for (states, rows) |*to, from| to.* = @intCast(from >> row_bits);
        }

        /// The last word of a stream, bit by bit; returns the state after it.
        fn tail(
            comptime outputs: usize,
            given: [*]const u32,
            read: *const [inputs]u64,
            written: *[outputs]u64,
            begin: u32,
            count: u32,
        ) u32 {
            var now = begin;
            for (0..count) |t| {
                const place_of_bit: u6 = @intCast(t);
                var row: usize = @as(usize, now) << inputs;
                inline for (read, 0..) |bits, input| row |= (bits >> place_of_bit & 1) << input;
                const entry = given[row];
                now = entry & 0xffff;
                inline for (written, 0..) |*to, output| to.* |= @as(u64, entry >> (16 + 8 * output) & 1) << place_of_bit;
            }
            return now;
        }
    };
}

/// Whether a table of `steps` bits at once fits, and pays.
fn pays(call: *const abi.Fsm, comptime row_bits: u6) bool {
    const entries = @as(u64, call.state_count) << row_bits;
    const bits = 64 * @as(u64, call.stream_count) * (call.word_end -| call.word_begin);
    return entries <= most_entries and bits_per_entry * entries <= bits;
}

fn runWith(comptime inputs: usize, comptime most_steps: usize, call: *const abi.Fsm) void {
    const count: usize = call.state_count;
    var tables: [2][most_entries]u32 = undefined;
    if (!pays(call, 2 * inputs)) return Machine(inputs, 1).run(call, call.table);
    Machine(inputs, 2).double(&tables[0], call.table, count);
    if (most_steps < 4 or !pays(call, 4 * inputs)) return Machine(inputs, 2).run(call, &tables[0]);
    Machine(inputs, 4).double(&tables[1], &tables[0], count);
    if (most_steps < 8 or !pays(call, 8 * inputs)) return Machine(inputs, 4).run(call, &tables[1]);
    Machine(inputs, 8).double(&tables[0], &tables[1], count);
    Machine(inputs, 8).run(call, &tables[0]);
}

pub fn fsm(call: *const abi.Fsm) callconv(.c) void {
    switch (call.input_count) {
        1 => runWith(1, 8, call),
        2 => runWith(2, 4, call),
        else => runWith(3, 2, call),
    }
}

/// The same number, hidden from the compiler, which would gather neighbours into vectors and take them apart again.
inline fn scalar(number: u32) u32 {
    return asm (""
        : [same] "=r" (-> u32),
        : [number] "0" (number),
    );
}

test "tables of several bits at once do what single steps do" {
    inline for (.{ .{ 1, 2 }, .{ 1, 4 }, .{ 1, 8 }, .{ 2, 2 }, .{ 2, 4 }, .{ 3, 2 } }) |shape| {
        const inputs = shape[0];
        const steps = shape[1];
        const state_count = 5;
        const Wide = Machine(inputs, steps);
        var random: std.Random.DefaultPrng = .init(5);
        var given: [state_count << inputs]u32 = undefined;
        for (&given) |*entry| entry.* = random.random().uintLessThan(u32, state_count) | random.random().int(u32) & 0x0101_0000;
        var tables: [2][state_count << inputs * steps]u32 = undefined;
        @memcpy(tables[0][0..given.len], &given);
        comptime var made = 1;
        inline while (made < steps) : (made *= 2) {
            Machine(inputs, 2 * made).double(&tables[1], &tables[0], state_count);
            @memcpy(&tables[0], &tables[1]);
        }
        for (0..state_count) |begin| {
            for (0..1 << inputs * steps) |row| {
                const entry = tables[0][Wide.place(@intCast(begin)) + row];
                var now: u32 = @intCast(begin);
                for (0..steps) |step| {
                    var at = now << inputs;
                    inline for (0..inputs) |input| at |= @intCast((row >> @intCast(input * steps + step) & 1) << input);
                    now = given[at] & 0xffff;
                    try std.testing.expectEqual(given[at] >> 16 & 1, entry >> @intCast(16 + step) & 1);
                    try std.testing.expectEqual(given[at] >> 24 & 1, entry >> @intCast(24 + step) & 1);
                }
                try std.testing.expectEqual(now, Wide.state(entry));
            }
        }
    }
}
