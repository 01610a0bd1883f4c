//! The library's exports: one function per operation, which checks the buffers' lengths
//! and calls the chosen tier, and what the loader asks before the first call.

const std = @import("std");
const abi = @import("abi.zig");
const cpu = @import("cpu.zig");
const tiers = @import("tiers");

comptime {
    for (std.meta.fieldNames(abi.Table)) |op| {
        @export(&Entry(op).run, .{ .name = "scgpu_" ++ op });
    }
    @export(&digest, .{ .name = "scgpu_digest" });
    @export(&tierCount, .{ .name = "scgpu_tier_count" });
    @export(&tierName, .{ .name = "scgpu_tier_name" });
    @export(&tierUsable, .{ .name = "scgpu_tier_usable" });
}

fn kernels(comptime name: []const u8) *const abi.Table {
    return @extern(*const abi.Table, .{ .name = "scgpu_kernels_" ++ name, .visibility = .hidden });
}

fn Entry(comptime op: []const u8) type {
    const Kernel = @FieldType(abi.Table, op);
    const Call = @typeInfo(@typeInfo(Kernel).pointer.child).@"fn".param_types[0].?;
    return struct {
        fn run(tier: u32, call: Call) callconv(.c) abi.Status {
            if (!call.fits()) return .short_buffer;
            inline for (tiers.names, 0..) |name, index| {
                if (tier == index) {
                    if (!cpu.supports(name)) return .unusable_tier;
                    @field(kernels(name), op)(call);
                    return .ok;
                }
            }
            return .unusable_tier;
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
