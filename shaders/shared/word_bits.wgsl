// word_bits: 64-bit words of spikes as vec2<u32>, low half first.

/// 64 bits of which the lowest `count`, 0 to 64, are set.
fn lowest(count: u32) -> vec2<u32> {
    let low = select(0xffffffffu, (1u << count) - 1u, count < 32u);
    let high = select(0xffffffffu, (1u << (count - 32u)) - 1u, count < 64u);
    return vec2(low, select(high, 0u, count <= 32u));
}

/// A word moved up by 0 to 63 bits.
fn moved_up(word: vec2<u32>, bits: u32) -> vec2<u32> {
    if (bits >= 32u) {
        return vec2(0u, word.x << (bits - 32u));
    }
    // Two shifts: none may be by 32.
    return vec2(word.x << bits, word.y << bits | word.x >> 1u >> (31u - bits));
}

/// A word moved down by 0 to 63 bits.
fn moved_down(word: vec2<u32>, bits: u32) -> vec2<u32> {
    if (bits >= 32u) {
        return vec2(word.y >> (bits - 32u), 0u);
    }
    return vec2(word.x >> bits | word.y << 1u << (31u - bits), word.y >> bits);
}
