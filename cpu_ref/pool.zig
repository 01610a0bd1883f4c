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

/// Changes with every job; workers sleep on it.
var generation: Counter = .init(0);
/// Workers that sleep, or are about to.
var asleep: Counter = .init(0);
/// Generation, and how many chunks nobody has taken. This one number decides who runs what: a
/// finished job has none left whatever the next one's size, so a late worker takes nothing, and
/// the generation keeps it from taking a chunk by a number that it read for another job.
var tickets: std.atomic.Value(u64) = .init(0);
/// Chunks of the job; read by those who hold one.
var chunk_count: Counter = .init(0);
/// Chunks that are done; the caller sleeps on it.
var done: Counter = .init(0);
var job: struct { context: *const anyopaque, body: Body } = undefined;

pub fn threads() u32 {
    return thread_count.load(.acquire);
}

/// Use so many threads; workers that are too many leave `serve`.
pub fn setThreads(count: u32) void {
    thread_count.store(@max(1, @min(count, most_threads)), .release);
    _ = generation.fetchAdd(1, .seq_cst);
    wakeWorkers();
}

/// True when a worker looks out for the next job, which it then takes up at once.
pub fn awake() bool {
    return serving.load(.acquire) > asleep.load(.acquire);
}

/// Let the workers look out for a while.
pub fn rouse() void {
    if (!supported or serving.load(.acquire) == 0 or threads() < 2) return;
    if (busy.cmpxchgStrong(0, 1, .acq_rel, .acquire) != null) return;
    _ = generation.fetchAdd(1, .seq_cst);
    busy.store(0, .release);
    wakeWorkers();
}

/// In a forked child no worker exists, and the state may be that of a job in flight.
pub fn reset() void {
    thread_count.store(1, .release);
    serving.store(0, .release);
    asleep.store(0, .release);
    tickets.store(0, .release);
    busy.store(0, .release);
}

/// Work for the pool until there are fewer than `index` + 1 threads.
pub fn serve(index: u32) void {
    if (!supported) return;
    _ = serving.fetchAdd(1, .acq_rel);
    var seen = generation.load(.acquire);
    drain();
    while (index < thread_count.load(.acquire)) {
        seen = awaitChange(&generation, seen, &asleep);
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
    done.store(0, .release);
    const now = generation.load(.acquire) +% 1;
    tickets.store(@as(u64, now) << 32 | chunks, .release);
    generation.store(now, .seq_cst);
    wakeWorkers();
    drain();
    while (true) {
        const finished = done.load(.acquire);
        if (finished == chunks) break;
        _ = awaitChange(&done, finished, null);
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
        if (done.fetchAdd(1, .acq_rel) + 1 == chunks) wake(&done);
    }
}

/// The counter's value once it is no longer `old`; `sleepers` counts the threads that sleep for it.
fn awaitChange(counter: *Counter, old: u32, sleepers: ?*Counter) u32 {
    for (0..spins) |_| {
        const value = counter.load(.acquire);
        if (value != old) return value;
        std.atomic.spinLoopHint();
    }
    if (sleepers) |count| _ = count.fetchAdd(1, .seq_cst);
    defer if (sleepers) |count| {
        _ = count.fetchSub(1, .acq_rel);
    };
    while (true) {
        const value = counter.load(.seq_cst);
        if (value != old) return value;
        if (supported) _ = linux.futex_4arg(counter, .{ .cmd = .WAIT, .private = true }, old, null);
    }
}

/// Sleepers are counted before they look at the generation for the last time, and here they are
/// looked for after it changed: one of the two sees the other.
fn wakeWorkers() void {
    if (asleep.load(.seq_cst) > 0) wake(&generation);
}

fn wake(counter: *Counter) void {
    if (supported) _ = linux.futex_3arg(counter, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32));
}
