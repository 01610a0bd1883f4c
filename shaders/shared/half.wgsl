// half: one of the two i16 in a u32.

/// Half `index` of a pair, the even one the lower.
fn half(pair: u32, index: u32) -> i32 {
    return i32(pair << (16u * (1u - index % 2u))) >> 16u;
}
