//! Root of one SIMD tier: the same operations, compiled for that tier's CPU level.

const abi = @import("abi.zig");
const tier = @import("tier");

pub const table: abi.Table = .{
    .philox = &@import("philox.zig").philox,
    .encode = &@import("encode.zig").encode,
    .compare = &@import("compare.zig").compare,
    .dense = &@import("dense.zig").dense,
    .prefix = &@import("prefix.zig").prefix,
    .lookup = &@import("lookup.zig").lookup,
    .count = &@import("count.zig").count,
    .bitwise = &@import("bitwise.zig").bitwise,
    .delay = &@import("delay.zig").delay,
    .accumulate = &@import("accumulate.zig").accumulate,
    .conditional = &@import("conditional.zig").conditional,
    .pack = &@import("pack.zig").pack,
    .unpack = &@import("unpack.zig").unpack,
    .activation = &@import("activation.zig").activation,
    .lif = &@import("lif.zig").lif,
    .drive = &@import("drive.zig").drive,
    .propagate = &@import("propagate.zig").propagate,
    .trace = &@import("trace.zig").trace,
    .stdp = &@import("stdp.zig").stdp,
    .poisson = &@import("poisson.zig").poisson,
    .fsm = &@import("fsm.zig").fsm,
    .permute = &@import("permute.zig").permute,
};

comptime {
    @export(&table, .{ .name = "scgpu_kernels_" ++ tier.name, .visibility = .hidden });
}
