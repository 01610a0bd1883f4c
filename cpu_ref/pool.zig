//! A pool of threads for one job at a time. The host process lends the threads: it starts
//! them, and each calls `serve`, so the library needs no thread library of its own. A caller
//! that finds the pool busy runs its job alone.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const Counter = std.atomic.Value(u32);

pub const supported = builtin.os.tag == .linux;

/// Turns of a waiting loop before it sleeps: about as long as waking a thread takes.
const spins = 4000;
pub const most_threads = if (supported) 1024 else 1;

pub const Body = *const fn (context: *const anyopaque, chunk: u32) void;

/// Threads that share a job, the caller among them.
var thread_count: Counter = .init(1);
/// Threads that are in `serve` now.
var serving: Counter = .init(0);
var busy: Counter = .init(0);

/// Changes with every job.
var generation: Event = .{};
/// Generation, and how many chunks nobody has taken. This one number decides who runs what: a
/// finished job has none left whatever the next one's size, so a late worker takes nothing, and
/// the generation keeps it from taking a chunk by a number that it read for another job.
var tickets: std.atomic.Value(u64) = .init(0);
/// Chunks of the job; read by those who hold one.
var chunk_count: Counter = .init(0);
/// Chunks that are done.
var done: Event = .{};
/// Where the caller of the last job ran.
var caller_processor: Counter = .init(nowhere);
const nowhere = 0xffff_ffff;
var job: struct { context: *const anyopaque, body: Body } = undefined;

pub fn threads() u32 {
    return thread_count.load(.acquire);
}

/// Use so many threads; workers that are too many leave `serve`.
pub fn setThreads(count: u32) void {
    thread_count.store(@max(1, @min(count, most_threads)), .release);
    _ = generation.value.fetchAdd(1, .seq_cst);
    generation.wake();
}

/// True when a worker looks out for the next job, which it then takes up at once.
pub fn awake() bool {
    return serving.load(.acquire) > generation.sleepers.load(.acquire);
}

/// Let the workers look out for a while.
pub fn rouse() void {
    if (!supported or serving.load(.acquire) == 0 or threads() < 2) return;
    if (busy.cmpxchgStrong(0, 1, .acq_rel, .acquire) != null) return;
    _ = generation.value.fetchAdd(1, .seq_cst);
    busy.store(0, .release);
    generation.wake();
}

/// In a forked child no worker exists, and the state may be that of a job in flight.
pub fn reset() void {
    thread_count.store(1, .release);
    serving.store(0, .release);
    tickets.store(0, .release);
    busy.store(0, .release);
    generation.sleepers.store(0, .release);
    done.sleepers.store(0, .release);
}

/// Work for the pool until there are fewer than `index` + 1 threads.
pub fn serve(index: u32) void {
    if (!supported) return;
    _ = serving.fetchAdd(1, .acq_rel);
    var placement: Placement = .here();
    var seen = generation.value.load(.acquire);
    drain();
    while (index < thread_count.load(.acquire)) {
        seen = generation.awaitChange(seen);
        placement.avoid(caller_processor.load(.acquire));
        drain();
    }
    _ = serving.fetchSub(1, .acq_rel);
}

/// Run body(context, 0 .. chunks) on all threads; false when the pool is busy or has one thread.
pub fn run(context: *const anyopaque, body: Body, chunks: u32) bool {
    if (!supported or serving.load(.acquire) == 0 or threads() < 2) return false;
    if (busy.cmpxchgStrong(0, 1, .acq_rel, .acquire) != null) return false;
    job = .{ .context = context, .body = body };
    chunk_count.store(chunks, .release);
    done.value.store(0, .release);
    var processor: usize = nowhere;
    _ = linux.getcpu(&processor, null);
    caller_processor.store(@truncate(processor), .release);
    const now = generation.value.load(.acquire) +% 1;
    tickets.store(@as(u64, now) << 32 | chunks, .release);
    generation.value.store(now, .seq_cst);
    generation.wake();
    drain();
    while (true) {
        const finished = done.value.load(.acquire);
        if (finished == chunks) break;
        _ = done.awaitChange(finished);
    }
    busy.store(0, .release);
    return true;
}

/// Take chunks until none is left.
fn drain() void {
    while (true) {
        const ticket = tickets.load(.acquire);
        const left: u32 = @truncate(ticket);
        if (left == 0) return;
        if (tickets.cmpxchgWeak(ticket, ticket - 1, .acq_rel, .acquire) != null) continue;
        const chunks = chunk_count.load(.acquire);
        job.body(job.context, chunks - left);
        if (done.value.fetchAdd(1, .seq_cst) + 1 == chunks) done.wake();
    }
}

/// A number that threads wait for.
const Event = struct {
    value: Counter = .init(0),
    /// Threads that sleep, or are about to: asking the kernel to wake nobody costs as much as a small job.
    sleepers: Counter = .init(0),

    /// The value once it is no longer `old`.
    fn awaitChange(event: *Event, old: u32) u32 {
        for (0..spins) |_| {
            const value = event.value.load(.acquire);
            if (value != old) return value;
            std.atomic.spinLoopHint();
        }
        // Whoever changes the value looks for sleepers afterwards, and the kernel looks at the value.
        _ = event.sleepers.fetchAdd(1, .seq_cst);
        defer _ = event.sleepers.fetchSub(1, .seq_cst);
        while (true) {
            const value = event.value.load(.seq_cst);
            if (value != old) return value;
            if (supported) _ = linux.futex_4arg(&event.value, .{ .cmd = .WAIT, .private = true }, old, null);
        }
    }

    /// Call after a change, which must be sequentially consistent.
    fn wake(event: *Event) void {
        if (!supported or event.sleepers.load(.seq_cst) == 0) return;
        _ = linux.futex_3arg(&event.value, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32));
    }
};

/// Where a worker may run: not on the caller's processor, while there are enough others. The
/// scheduler often wakes a worker beside its caller, where it waits until the job is done.
const Placement = struct {
    /// Where the thread may run for all others know.
    allowed: linux.cpu_set_t,
    /// What this has made of it.
    chosen: linux.cpu_set_t,
    avoided: u32 = nowhere,

    fn here() Placement {
        const now = current();
        return .{ .allowed = now, .chosen = now };
    }

    fn current() linux.cpu_set_t {
        var set: linux.cpu_set_t = @splat(0);
        if (linux.sched_getaffinity(0, @sizeOf(linux.cpu_set_t), &set) != 0) return @splat(0);
        return set;
    }

    fn avoid(placement: *Placement, processor: u32) void {
        if (processor == placement.avoided or processor >= @bitSizeOf(linux.cpu_set_t)) return;
        placement.avoided = processor;
        // Somebody else's choice is the new limit.
        const now = current();
        if (!std.mem.eql(usize, &now, &placement.chosen)) placement.allowed = now;
        placement.chosen = placement.allowed;
        placement.chosen[processor / @bitSizeOf(usize)] &= ~(@as(usize, 1) << @truncate(processor));
        if (@as(u32, linux.CPU_COUNT(placement.chosen)) + 1 < threads()) placement.chosen = placement.allowed;
        if (!std.mem.eql(usize, &now, &placement.chosen)) {
            linux.sched_setaffinity(0, &placement.chosen) catch {
                placement.chosen = now;
            };
        }
    }
};

test "every chunk of every job runs once, on however many threads" {
    if (!supported) return;
    const Ledger = struct {
        runs: [100]Counter = @splat(.init(0)),

        fn note(context: *const anyopaque, chunk: u32) void {
            const ledger: *const @This() = @ptrCast(@alignCast(context));
            _ = @constCast(ledger).runs[chunk].fetchAdd(1, .monotonic);
        }
    };
    try std.testing.expect(!run(&Ledger{}, Ledger.note, 2));
    setThreads(3);
    var workers: [2]std.Thread = undefined;
    for (&workers, 1..) |*worker, index| worker.* = try std.Thread.spawn(.{}, serve, .{@as(u32, @intCast(index))});
    while (serving.load(.acquire) < workers.len) std.atomic.spinLoopHint();
    for (0..2000) |job_index| {
        const chunks: u32 = @intCast(1 + job_index % 100);
        var ledger: Ledger = .{};
        try std.testing.expect(run(&ledger, Ledger.note, chunks));
        for (&ledger.runs, 0..) |*runs, chunk| try std.testing.expectEqual(@intFromBool(chunk < chunks), runs.load(.acquire));
    }
    setThreads(1);
    for (workers) |worker| worker.join();
    try std.testing.expectEqual(0, serving.load(.acquire));
}

test "what a forked child finds is reset" {
    busy.store(1, .release);
    setThreads(5);
    reset();
    try std.testing.expectEqual(1, threads());
    try std.testing.expectEqual(0, busy.load(.acquire));
}
