//! Which SIMD tiers this processor and operating system can run.

const std = @import("std");
const builtin = @import("builtin");

/// Only code for the baseline of the target may run before this has answered.
pub fn supports(tier: []const u8) bool {
    if (builtin.cpu.arch != .x86_64) return true;
    const level = cached_level.load(.monotonic);
    const detected: u32 = if (level != unknown) level else detect: {
        const found = detectLevel();
        cached_level.store(found, .monotonic);
        break :detect found;
    };
    inline for (levels, 0..) |name, index| {
        if (std.mem.eql(u8, name, tier)) return detected >= index;
    }
    return false;
}

const levels = [_][]const u8{ "x86_64_v2", "x86_64_v3", "x86_64_v4", "x86_64_v4_vpopcntdq" };
const unknown: u32 = 0xffff_ffff;

// cpuid traps into the hypervisor of a virtual machine (tens of microseconds): asked once.
var cached_level: std.atomic.Value(u32) = .init(unknown);

const Registers = struct { eax: u32, ebx: u32, ecx: u32, edx: u32 };

fn cpuid(leaf: u32, subleaf: u32) Registers {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [_] "={eax}" (eax),
          [_] "={ebx}" (ebx),
          [_] "={ecx}" (ecx),
          [_] "={edx}" (edx),
        : [_] "{eax}" (leaf),
          [_] "{ecx}" (subleaf),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

/// Register state that the operating system saves (XCR0).
fn savedState() u32 {
    return asm volatile ("xgetbv"
        : [_] "={eax}" (-> u32),
        : [_] "{ecx}" (@as(u32, 0)),
        : .{ .edx = true });
}

fn has(register: u32, comptime bits: []const u5) bool {
    comptime var mask: u32 = 0;
    inline for (bits) |bit| mask |= @as(u32, 1) << bit;
    return register & mask == mask;
}

/// Index into `levels` of the highest level whose every feature is here (Intel SDM vol. 2A,
/// CPUID; x86-64 psABI for the levels).
fn detectLevel() u32 {
    const basic = cpuid(1, 0);
    const largest_leaf = cpuid(0, 0).eax;
    const osxsave = has(basic.ecx, &.{27});
    if (largest_leaf < 7 or !osxsave) return 0;
    const saved = savedState();
    const extended = cpuid(7, 0);
    const amd = cpuid(0x8000_0001, 0);
    // FMA, MOVBE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT; xmm and ymm saved
    if (!has(basic.ecx, &.{ 12, 22, 28, 29 })) return 0;
    if (!has(extended.ebx, &.{ 3, 5, 8 }) or !has(amd.ecx, &.{5})) return 0;
    if (!has(saved, &.{ 1, 2 })) return 0;
    // AVX-512 F, DQ, CD, BW, VL; opmask and both zmm halves saved
    if (!has(extended.ebx, &.{ 16, 17, 28, 30, 31 }) or !has(saved, &.{ 5, 6, 7 })) return 1;
    // AVX512_VPOPCNTDQ
    if (!has(extended.ecx, &.{14})) return 2;
    return 3;
}

test "levels are a ladder, and no other name is a tier" {
    var before = true;
    for (levels) |level| {
        try std.testing.expect(before or !supports(level));
        before = supports(level);
    }
    if (builtin.cpu.arch != .x86_64) return;
    try std.testing.expect(supports(levels[0]));
    try std.testing.expect(!supports("x86_64_v5"));
    try std.testing.expect(has(0b1010, &.{ 1, 3 }) and !has(0b1010, &.{ 1, 2 }));
}
