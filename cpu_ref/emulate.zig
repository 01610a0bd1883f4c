//! A filter that runs kernels for another process: how the tests reach SIMD tiers of other
//! processors, through an emulator. Linux only, and no part of the library.
//!
//! Standard input holds calls: the operation's index in abi.Table (u32), its parameters (u32
//! each), then for each buffer its length in elements (u64) and its content. Standard output
//! gets the content of every buffer after the call. All numbers are little-endian.

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
                const items = std.heap.page_allocator.alloc(pointer.child, length) catch return false;
                if (!receive(std.mem.sliceAsBytes(items))) return false;
                @field(call, field) = items.ptr;
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
            const items = @constCast(@field(call, field)[0..@field(call, field ++ "_len")]);
            if (!send(std.mem.sliceAsBytes(items))) return false;
            std.heap.page_allocator.free(items);
        }
    }
    return true;
}

/// Fill the buffer; false at the end of the input or on an error.
fn receive(buffer: []u8) bool {
    var done: usize = 0;
    while (done < buffer.len) {
        const got = linux.read(0, buffer.ptr + done, buffer.len - done);
        if (got == 0 or got > buffer.len) return false;
        done += got;
    }
    return true;
}

fn send(buffer: []const u8) bool {
    var done: usize = 0;
    while (done < buffer.len) {
        const put = linux.write(1, buffer.ptr + done, buffer.len - done);
        if (put == 0 or put > buffer.len) return false;
        done += put;
    }
    return true;
}
