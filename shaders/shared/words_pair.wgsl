// words_pair: rows are read one 64-bit word at a time, whatever their length.

alias Words = vec2<u32>;
const words_per_element = 1u;

fn ones(words: Words) -> u32 {
    let bits = countOneBits(words);
    return bits.x + bits.y;
}
