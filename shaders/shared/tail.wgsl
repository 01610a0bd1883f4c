// tail: the bits of a stream's 64-bit word that belong to the stream.

fn tail_mask(word: u32, word_count: u32, tail_bits: u32) -> vec2<u32> {
    if (word + 1u < word_count) {
        return vec2(0xffffffffu);
    }
    // A shift by 32 is not defined: each half is kept whole, cut, or cleared.
    let low = select(0xffffffffu, (1u << (tail_bits & 31u)) - 1u, tail_bits < 32u);
    let cut = select(0xffffffffu, (1u << (tail_bits & 31u)) - 1u, tail_bits < 64u);
    return vec2(low, select(0u, cut, tail_bits > 32u));
}
