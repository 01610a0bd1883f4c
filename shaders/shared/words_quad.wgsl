// words_quad: rows are read two 64-bit words at a time; they have an even number of words.

alias Words = vec4<u32>;
const words_per_element = 2u;

fn ones(words: Words) -> u32 {
    if (carry_save) {
        // A full adder makes of three words to count two, one of them worth double.
        let half = words.x ^ words.y;
        let carry = (words.x & words.y) | (half & words.z);
        let bits = countOneBits(vec3(half ^ words.z, carry, words.w));
        return bits.x + 2u * bits.y + bits.z;
    }
    let bits = countOneBits(words);
    return bits.x + bits.y + bits.z + bits.w;
}
