//! A filter that runs kernels for another process: how the tests reach SIMD tiers of other
//! processors, through an emulator. Linux only, and no part of the library.
//!
//! Standard input holds calls: the operation's index in abi.Table (u32), its parameters (u32
//! each), then for each buffer its length in elements (u64) and its content. Standard output
//! gets the content of every buffer after the call. All numbers are little-endian.
//!
//! Every buffer ends at a page that nobody may touch, and begins after bytes that Valgrind's
//! memcheck watches: who reads or writes beside it is found out.

const std = @import("std");
const abi = @import("abi.zig");
const kernels = @import("kernels.zig");
const linux = std.os.linux;

pub fn main() u8 {
    var op: u32 = undefined;
    while (receive(std.mem.asBytes(&op))) {
        inline for (@typeInfo(abi.Table).@"struct".field_names, 0..) |name, index| {
            if (op == index and !serve(name)) return 1;
        }
    }
    return 0;
}

/// Read one call of an operation, run it, and write its buffers.
fn serve(comptime name: []const u8) bool {
    const Kernel = @typeInfo(@FieldType(abi.Table, name)).pointer.child;
    const Call = @typeInfo(@typeInfo(Kernel).@"fn".param_types[0].?).pointer.child;
    const fields = @typeInfo(Call).@"struct";
    var call: Call = undefined;
    inline for (fields.field_names, fields.field_types) |field, Field| {
        switch (@typeInfo(Field)) {
            .pointer => |pointer| {
                var length: u64 = undefined;
                if (!receive(std.mem.asBytes(&length))) return false;
                const bytes = buffer(std.math.mul(u64, length, @sizeOf(pointer.child)) catch return false) orelse return false;
                if (!receive(bytes)) return false;
                @field(call, field) = @ptrCast(@alignCast(bytes.ptr));
                @field(call, field ++ "_len") = length;
            },
            else => if (Field == u32) {
                if (!receive(std.mem.asBytes(&@field(call, field)))) return false;
            },
        }
    }
    if (call.check() != .ok) return false;
    @field(kernels.table, name)(&call);
    inline for (fields.field_names, fields.field_types) |field, Field| {
        if (@typeInfo(Field) == .pointer) {
            const bytes = std.mem.sliceAsBytes(@field(call, field)[0..@field(call, field ++ "_len")]);
            if (!send(bytes)) return false;
            release(bytes);
        }
    }
    return true;
}

/// Pages that hold so many bytes.
fn pages(length: u64) u64 {
    return std.mem.alignForward(u64, length, std.heap.pageSize());
}

/// Memory between two guard pages, at the end of what lies between them.
fn buffer(length: u64) ?[]u8 {
    const page = std.heap.pageSize();
    if (length > 1 << 40) return null;
    const whole = pages(length) + 2 * page;
    const first = linux.mmap(null, whole, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
    if (linux.errno(first) != .SUCCESS) return null;
    const memory = @as([*]u8, @ptrFromInt(first))[0..whole];
    for ([_]u64{ 0, whole - page }) |guard| {
        if (linux.errno(linux.mprotect(memory.ptr + guard, page, .{})) != .SUCCESS) return null;
    }
    const begin = whole - page - length;
    std.valgrind.memcheck.makeMemNoAccess(memory[page..begin]);
    return memory[begin..][0..length];
}

fn release(bytes: []const u8) void {
    const page = std.heap.pageSize();
    const begin = bytes.ptr + bytes.len - pages(bytes.len) - page;
    _ = linux.munmap(begin, pages(bytes.len) + 2 * page);
}

/// Fill the bytes; false at the end of the input or on an error.
fn receive(bytes: []u8) bool {
    var done: usize = 0;
    while (done < bytes.len) {
        const got = linux.read(0, bytes.ptr + done, bytes.len - done);
        if (got == 0 or got > bytes.len) return false;
        done += got;
    }
    return true;
}

fn send(bytes: []const u8) bool {
    var done: usize = 0;
    while (done < bytes.len) {
        const put = linux.write(1, bytes.ptr + done, bytes.len - done);
        if (put == 0 or put > bytes.len) return false;
        done += put;
    }
    return true;
}
