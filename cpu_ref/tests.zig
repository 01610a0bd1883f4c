//! Root of `zig test`: the unit tests of every file that has some.

test {
    _ = @import("activation.zig");
    _ = @import("compare.zig");
    _ = @import("count.zig");
    _ = @import("cpu.zig");
    _ = @import("delay.zig");
    _ = @import("dense.zig");
    _ = @import("drive.zig");
    _ = @import("encode.zig");
    _ = @import("fsm.zig");
    _ = @import("lif.zig");
    _ = @import("lookup.zig");
    _ = @import("pack.zig");
    _ = @import("permute.zig");
    _ = @import("philox.zig");
    _ = @import("poisson.zig");
    _ = @import("pool.zig");
    _ = @import("popcount.zig");
    _ = @import("prefix.zig");
    _ = @import("propagate.zig");
    _ = @import("split.zig");
    _ = @import("stdp.zig");
    _ = @import("unpack.zig");
}
