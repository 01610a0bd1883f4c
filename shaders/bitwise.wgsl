// bitwise: AND, OR, XOR of two bitstream tensors, NOT of one (`left`; `right` is ignored).
// Work item: one invocation writes one 64-bit word
// Layout:    words from source_word on of both make words from first_word on
// Padding:   NOT clears the bits past the last one of a stream
// Exactness: integer; equals cpu_ref/bitwise.zig bit for bit
#import abi
#import grid
#import tail

override wg_size: u32 = 64u;

@compute @workgroup_size(wg_size)
fn bitwise(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_index(workgroup, grid) * wg_size + lane;
    if (i >= params.stream_count * params.word_count) {
        return;
    }
    let a = left[params.source_word + i];
    let b = right[params.source_word + i];
    switch params.operation {
        case bit_and: {
            result[params.first_word + i] = a & b;
        }
        case bit_or: {
            result[params.first_word + i] = a | b;
        }
        case bit_xor: {
            result[params.first_word + i] = a ^ b;
        }
        default: {
            result[params.first_word + i] = ~a & tail_mask(i % params.word_count, params.word_count, params.tail_bits);
        }
    }
}
