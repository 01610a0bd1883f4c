// philox_block: Philox4x32 (Salmon et al., SC'11, as in Random123).

// High and low half of a 32 x 32 bit product, by 16-bit halves: WGSL has no wider product.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let middle = a_high * b_low + (low >> 16u);
    let cross = a_low * b_high + (middle & 0xffffu);
    return vec2(a_high * b_high + (middle >> 16u) + (cross >> 16u), a * b);
}

fn philox_block(counter: vec4<u32>, key: vec2<u32>, rounds: u32) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < rounds; round++) {
        let p0 = multiply_wide(0xd2511f53u, c.x);
        let p1 = multiply_wide(0xcd9e8d57u, c.z);
        c = vec4(p1.x ^ c.y ^ k.x, p1.y, p0.x ^ c.w ^ k.y, p0.y);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}
