// permute: streams in the order that a network of exchanges gives them.
// Computes:  permuted[s, i] = words[sample_begin + s, i] after the stages of input i's network, for the inputs
//            input_begin .. input_end; a stage of stride d exchanges bits p and p + d where its mask is 1
// Layout:    strides width / 2 ... 2, 1, 2 ... width / 2. Masks come in the order of their use, in chunks of 512 bits:
//            of strides of 512 and more one for each two that they exchange, then for each 512 bits those of
//            strides 256 ... 1 ... 256, where a mask is 1 at both bits
// Work item: one workgroup makes one stream
// Padding:   a stream is 0 past its length, before and after
// Exactness: integer; equals cpu_ref/permute.zig bit for bit
#import abi
#import grid
#import tail

override wg_size: u32 = 64u;

// Halves of words; a chunk has 16 of them.
var<workgroup> bits: array<u32, 256>;

fn mask_half(row: u32, half: u32) -> u32 {
    return masks[row + half / 2u][half & 1u];
}

// A stage between halves of words: pairs whose first halves are 2 * distance apart, in runs of `distance`. Their masks
// begin at half `first`; those of a run of a chunk or more follow each other, the others stand in every 17th chunk.
fn between(row: u32, first: u32, distance: u32, lane: u32) {
    for (var pair = lane; pair < params.width / 64u; pair += wg_size) {
        let a = pair / distance * 2u * distance + pair % distance;
        let inner = a / 16u * 272u + a % 16u;
        let mask = mask_half(row, first + select(inner, pair, distance >= 16u));
        let moved = (bits[a] ^ bits[a + distance]) & mask;
        bits[a] ^= moved;
        bits[a + distance] ^= moved;
    }
    workgroupBarrier();
}

// A stage within halves of words.
fn within(row: u32, first: u32, stride: u32, lane: u32) {
    let lower = 0xffffffffu / ((1u << stride) + 1u);
    for (var half = lane; half < params.width / 32u; half += wg_size) {
        let mask = mask_half(row, first + half / 16u * 272u + half % 16u);
        let held = bits[half];
        let moved = (held ^ (held >> stride)) & mask & lower;
        bits[half] = held ^ moved ^ (moved << stride);
    }
    workgroupBarrier();
}

@compute @workgroup_size(wg_size)
fn permute(
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
    let word_count = (params.length + 63u) / 64u;
    let input = item % inputs;
    let stream = item / inputs * params.input_count + params.input_begin + input;
    let source = (params.sample_begin * params.input_count + stream) * word_count;
    for (var word = lane; word < params.width / 64u; word += wg_size) {
        var here = vec2(0u);
        if (word < word_count) {
            here = words[source + word];
        }
        bits[2u * word] = here.x;
        bits[2u * word + 1u] = here.y;
    }
    workgroupBarrier();

    let halves = params.width / 32u;
    let row = input * (params.index_bits + 8u) * (params.width / 64u);
    var first = 0u;
    for (var distance = halves / 2u; distance >= 16u; distance /= 2u) {
        between(row, first, distance, lane);
        first += halves / 2u;
    }
    var stage = first;
    for (var distance = 8u; distance > 0u; distance /= 2u) {
        between(row, stage, distance, lane);
        stage += 16u;
    }
    for (var stride = 16u; stride > 0u; stride /= 2u) {
        within(row, stage, stride, lane);
        stage += 16u;
    }
    for (var stride = 2u; stride < 32u; stride *= 2u) {
        within(row, stage, stride, lane);
        stage += 16u;
    }
    for (var distance = 1u; distance < 16u; distance *= 2u) {
        between(row, stage, distance, lane);
        stage += 16u;
    }
    first += 17u * halves;
    for (var distance = 16u; distance < halves; distance *= 2u) {
        between(row, first, distance, lane);
        first += halves / 2u;
    }

    let tail_bits = params.length - 64u * (word_count - 1u);
    for (var word = lane; word < word_count; word += wg_size) {
        permuted[stream * word_count + word] =
            vec2(bits[2u * word], bits[2u * word + 1u]) & tail_mask(word, word_count, tail_bits);
    }
}
