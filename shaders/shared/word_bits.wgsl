// word_bits: 64-bit words of spikes as vec2<u32>, low half first.

/// The bits below a bit, 0 to 63, of a word.
fn below(bit: u32) -> vec2<u32> {
    if (bit >= 32u) {
        return vec2(0xffffffffu, (1u << (bit - 32u)) - 1u);
    }
    return vec2((1u << bit) - 1u, 0u);
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

/// `count` bits, 1 to 64, of a word from bit `first` on.
fn bits_of(word: vec2<u32>, first: u32, count: u32) -> vec2<u32> {
    let moved = moved_down(word, first);
    return select(moved & below(count % 64u), moved, count == 64u);
}
