//! Octets that choose among 16 others: the look-up that every vector unit has.

const std = @import("std");
const builtin = @import("builtin");

pub const width = if (builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx2)) 32 else 16;
pub const Octets = @Vector(width, u8);

extern fn @"llvm.x86.avx2.pshuf.b"(Octets, Octets) callconv(.auto) Octets;
extern fn @"llvm.x86.ssse3.pshuf.b.128"(Octets, Octets) callconv(.auto) Octets;
extern fn @"llvm.aarch64.neon.tbl1.v16i8"(Octets, Octets) callconv(.auto) Octets;

/// 16 octets in each part of a register.
pub inline fn filled(part: @Vector(16, u8)) Octets {
    return std.simd.repeat(width, part);
}

/// The octet of `from`, of the same part's 16, that bits 0 to 3 of each index name; 0 where its bit 7 is set.
pub inline fn pick(from: Octets, index: Octets) Octets {
    if (builtin.cpu.arch == .aarch64) return @"llvm.aarch64.neon.tbl1.v16i8"(from, index & @as(Octets, @splat(0x8f)));
    return if (width == 32) @"llvm.x86.avx2.pshuf.b"(from, index) else @"llvm.x86.ssse3.pshuf.b.128"(from, index);
}
