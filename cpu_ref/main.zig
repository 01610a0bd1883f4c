//! The library's exports: one function per operation, which checks the parameters and the
//! buffers' lengths and addresses and calls the chosen tier, and what the loader asks before the
//! first call.

const std = @import("std");
const abi = @import("abi.zig");
const cpu = @import("cpu.zig");
const permute = @import("permute.zig");
const pool = @import("pool.zig");
const split = @import("split.zig");
const tiers = @import("tiers");

comptime {
    for (std.meta.fieldNames(abi.Table)) |op| {
        @export(&Entry(op).run, .{ .name = "scgpu_" ++ op });
    }
    @export(&digest, .{ .name = "scgpu_digest" });
    @export(&tierCount, .{ .name = "scgpu_tier_count" });
    @export(&tierName, .{ .name = "scgpu_tier_name" });
    @export(&tierUsable, .{ .name = "scgpu_tier_usable" });
    @export(&serve, .{ .name = "scgpu_serve" });
    @export(&threads, .{ .name = "scgpu_threads" });
    @export(&setThreads, .{ .name = "scgpu_set_threads" });
    @export(&mostThreads, .{ .name = "scgpu_most_threads" });
    @export(&resetThreads, .{ .name = "scgpu_reset_threads" });
    @export(&Route.run, .{ .name = "scgpu_route" });
}

/// Estimated work above which sleeping threads are woken for it: that takes tens of microseconds.
const asleep_nanoseconds = 40_000;
/// Estimated work above which it is shared with threads that are awake: that takes one or two.
const awake_nanoseconds = 8_000;
/// One in so many calls between the two, met by sleeping threads, wakes them for the next ones.
const rouse_calls = 16;
var calls_asleep: std.atomic.Value(u32) = .init(0);

fn worthSharing(nanoseconds: u64) bool {
    if (nanoseconds > asleep_nanoseconds) return true;
    if (nanoseconds <= awake_nanoseconds) return false;
    if (pool.awake()) return true;
    if (calls_asleep.fetchAdd(1, .monotonic) % rouse_calls == rouse_calls - 1) pool.rouse();
    return false;
}

fn kernels(comptime name: []const u8) *const abi.Table {
    return @extern(*const abi.Table, .{ .name = "scgpu_kernels_" ++ name, .visibility = .hidden });
}

fn Entry(comptime op: []const u8) type {
    const Kernel = @FieldType(abi.Table, op);
    const Call = @typeInfo(@typeInfo(Kernel).pointer.child).@"fn".param_types[0].?;
    return struct {
        fn run(tier: u32, call: Call) callconv(.c) abi.Status {
            const status = call.check();
            if (status != .ok) return status;
            inline for (tiers.names, 0..) |name, index| {
                if (tier == index) {
                    if (!cpu.supports(name)) return .unusable_tier;
                    share(@field(kernels(name), op), call);
                    return .ok;
                }
            }
            return .unusable_tier;
        }

        const Shared = struct { kernel: Kernel, call: Call, units: u64, chunks: u32 };

        /// Run the kernel, on all threads where that pays.
        fn share(kernel: Kernel, call: Call) void {
            const Division = @field(split, op);
            const units = Division.units(call);
            const worth = units > 1 and worthSharing(Division.nanoseconds(call));
            // Several for each, for threads that come late or are interrupted.
            const each: u64 = if (@hasDecl(Division, "partsPerThread")) Division.partsPerThread(call) else 4;
            const chunks: u32 = @intCast(@min(units, each * pool.threads()));
            const shared: Shared = .{ .kernel = kernel, .call = call, .units = units, .chunks = chunks };
            if (!worth or !pool.run(&shared, runChunk, chunks)) kernel(call);
        }

        fn runChunk(context: *const anyopaque, chunk: u32) void {
            const shared: *const Shared = @ptrCast(@alignCast(context));
            const begin = shared.units * chunk / shared.chunks;
            const end = shared.units * (chunk + 1) / shared.chunks;
            const part = @field(split, op).part(shared.call, begin, end);
            shared.kernel(&part);
        }
    };
}

fn digest() callconv(.c) u32 {
    return abi.digest;
}

fn tierCount() callconv(.c) u32 {
    return tiers.names.len;
}

fn tierName(tier: u32) callconv(.c) ?[*:0]const u8 {
    inline for (tiers.names, 0..) |name, index| {
        if (tier == index) return name;
    }
    return null;
}

fn tierUsable(tier: u32) callconv(.c) bool {
    inline for (tiers.names, 0..) |name, index| {
        if (tier == index) return cpu.supports(name);
    }
    return false;
}

fn serve(index: u32) callconv(.c) void {
    pool.serve(index);
}

fn threads() callconv(.c) u32 {
    return pool.threads();
}

fn setThreads(thread_count: u32) callconv(.c) void {
    pool.setThreads(thread_count);
}

fn mostThreads() callconv(.c) u32 {
    return pool.most_threads;
}

fn resetThreads() callconv(.c) void {
    pool.reset();
}

/// Masks of the networks that put streams in the orders of `order`, one row each, for the operation permute.
const Route = struct {
    order: [*]const u16,
    masks: [*]u64,
    length: usize,
    index_bits: usize,
    row_count: usize,
    chunks: usize,
    unroutable: std.atomic.Value(bool) = .init(false),

    fn run(order: usize, order_len: u64, masks: usize, masks_len: u64, row_count: u32, index_bits: u32) callconv(.c) abi.Status {
        if (index_bits < permute.least_index_bits or index_bits > permute.most_index_bits) return .bad_parameters;
        if (row_count == 0) return .ok;
        const length = order_len / row_count;
        if (length > @as(u64, 1) << @intCast(index_bits)) return .bad_parameters;
        if (masks_len < @as(u128, row_count) * permute.maskWords(index_bits)) return .short_buffer;
        if (order == 0 or order % @alignOf(u16) != 0 or masks == 0 or masks % @alignOf(u64) != 0) return .bad_address;
        var one: Route = .{
            .order = @ptrFromInt(order),
            .masks = @ptrFromInt(masks),
            .length = @intCast(length),
            .index_bits = index_bits,
            .row_count = row_count,
            .chunks = @min(row_count, 4 * pool.threads()),
        };
        if (!pool.run(&one, runChunk, @intCast(one.chunks))) for (0..one.chunks) |chunk| runChunk(&one, @intCast(chunk));
        return if (one.unroutable.load(.acquire)) .bad_parameters else .ok;
    }

    fn runChunk(context: *const anyopaque, chunk: u32) void {
        const one: *Route = @ptrCast(@alignCast(@constCast(context)));
        const mask_words = permute.maskWords(one.index_bits);
        for (one.row_count * chunk / one.chunks..one.row_count * (@as(usize, chunk) + 1) / one.chunks) |row| {
            const order = one.order[row * one.length ..][0..one.length];
            const masks = one.masks[row * mask_words ..][0..mask_words];
            if (!permute.route(order, one.index_bits, masks)) one.unroutable.store(true, .release);
        }
    }
};
