// multiply_wide_int64: high and low half of a 32 x 32 bit product, where the adapter has 64-bit integers.

fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let product = u64(a) * u64(b);
    return vec2(u32(product >> 32u), u32(product));
}
