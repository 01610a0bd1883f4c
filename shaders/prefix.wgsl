// prefix: ones among the first positions of a comparator sequence, in entries of 32 positions.
// Computes:  entries[s, i, k] = bits of words[sample_begin + s, i] at positions order[i, 32k ..
//            32k + 32] in the lower half, and how many of the positions before them hold ones in the upper half,
//            for the inputs input_begin .. input_end; order_bits 0 stands for order[i, k] = k
// Work item: one workgroup makes the entries of one stream
// Padding:   bits past the last position are 0; a row has length / 32 + 1 entries
// Exactness: integer; equals cpu_ref/prefix.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;

var<workgroup> running: array<u32, wg_size>;

fn half_word(row: u32, index: u32) -> u32 {
    let word = words[row + index / 2u];
    return select(word.x, word.y, (index & 1u) != 0u);
}

// Position k of a row of the order, in 16 or 32 bits.
fn position(row: u32, k: u32) -> u32 {
    if (params.order_bits == 16u) {
        return (order[row + k / 2u] >> (16u * (k & 1u))) & 0xffffu;
    }
    return order[row + k];
}

// Bits 32k .. 32k + 32 of a stream in its order.
fn ordered(words_row: u32, order_row: u32, k: u32) -> u32 {
    if (32u * k >= params.length) {
        return 0u;
    }
    if (params.order_bits == 0u) {
        return half_word(words_row, k);
    }
    var bits = 0u;
    let count = min(32u, params.length - 32u * k);
    for (var b = 0u; b < count; b++) {
        let t = position(order_row, 32u * k + b);
        bits |= ((half_word(words_row, t / 32u) >> (t & 31u)) & 1u) << b;
    }
    return bits;
}

@compute @workgroup_size(wg_size)
fn prefix(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let inputs = params.input_end - params.input_begin;
    let item = workgroup_index(workgroup, grid);
    // Uniform in the workgroup, so that every invocation reaches the barriers or none does.
    if (item >= params.sample_count * inputs) {
        return;
    }
    let input = item % inputs;
    let row = item / inputs * params.input_count + params.input_begin + input;
    let words_row = (params.sample_begin * params.input_count + row) * ((params.length + 63u) / 64u);
    let order_row = input * params.order_stride;
    let entry_count = params.length / 32u + 1u;
    var before = 0u;
    for (var first = 0u; first < entry_count; first += wg_size) {
        let k = first + lane;
        let bits = ordered(words_row, order_row, k);
        let ones = countOneBits(bits);
        running[lane] = ones;
        workgroupBarrier();
        for (var distance = 1u; distance < wg_size; distance *= 2u) {
            var sum = running[lane];
            if (lane >= distance) {
                sum += running[lane - distance];
            }
            workgroupBarrier();
            running[lane] = sum;
            workgroupBarrier();
        }
        if (k < entry_count) {
            entries[row * entry_count + k] = vec2(bits, before + running[lane] - ones);
        }
        before += running[wg_size - 1u];
        workgroupBarrier();
    }
}
