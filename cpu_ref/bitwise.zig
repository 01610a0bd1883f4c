//! bitwise: AND, OR, XOR of two bitstream tensors, NOT of one (`left`; `right` is ignored).
//! Layout:    words from source_word on of both make words from first_word on
//! Padding:   NOT clears the bits past the last one of a stream
//! Exactness: integer; equals shaders/bitwise.wgsl bit for bit

const abi = @import("abi.zig");

pub fn bitwise(call: *const abi.Bitwise) callconv(.c) void {
    const word_count: usize = call.word_count;
    const stream_count: usize = call.stream_count;
    const left = call.left[call.source_word..][0 .. stream_count * word_count];
    const right = call.right[call.source_word..][0 .. stream_count * word_count];
    const result = call.result[call.first_word..][0 .. stream_count * word_count];
    switch (call.operation) {
        abi.Bitwise.bit_and => for (left, right, result) |a, b, *r| {
            r.* = a & b;
        },
        abi.Bitwise.bit_or => for (left, right, result) |a, b, *r| {
            r.* = a | b;
        },
        abi.Bitwise.bit_xor => for (left, right, result) |a, b, *r| {
            r.* = a ^ b;
        },
        else => {
            for (left, result) |a, *r| r.* = ~a;
            if (word_count == 0) return;
            const tail_mask = @as(u64, 0xffff_ffff_ffff_ffff) >> @truncate(64 -% call.tail_bits);
            for (0..stream_count) |stream| result[(stream + 1) * word_count - 1] &= tail_mask;
        },
    }
}
