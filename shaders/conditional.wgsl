// conditional: products whose weight generator goes on only where the input lets it.
// Computes:  for every stream and bit t of the words word_begin .. word_end, with the places (p, q) of the stream,
//              where bit t of inputs is 1: bit t of result = bit p of weights, p = (p + 1) % period
//              where it is 0: 0, or of bipolar streams the complement of bit q of weights, q = (q + 1) % period
// Work item: one invocation advances one stream by every bit of the call
// Layout:    inputs and result from stream first_input on, weights from stream first_weight on
// Padding:   bits past the last one of a stream are 0 and move no place
// Limits:    a period of at most 2^31, and places below it
// Exactness: integer; equals cpu_ref/conditional.zig bit for bit
#import abi
#import grid
#import tail

override wg_size: u32 = 64u;

// Which bits of two masks move by 2^k places, for k = 0 .. 4.
struct Moves {
    by_1: vec2<u32>,
    by_2: vec2<u32>,
    by_4: vec2<u32>,
    by_8: vec2<u32>,
    by_16: vec2<u32>,
}

fn parities(bits: vec2<u32>) -> vec2<u32> {
    var parity = bits ^ bits << vec2(1u);
    parity ^= parity << vec2(2u);
    parity ^= parity << vec2(4u);
    parity ^= parity << vec2(8u);
    return parity ^ parity << vec2(16u);
}

// The low bits of two words, each at the next one of its mask (Warren: Hacker's Delight, section 7-5).
fn deposit(words: vec2<u32>, masks: vec2<u32>) -> vec2<u32> {
    var moves: Moves;
    var rest = masks;
    var zeros = ~masks << vec2(1u);
    var parity = parities(zeros);
    moves.by_1 = parity & rest;
    rest = (rest ^ moves.by_1) | moves.by_1 >> vec2(1u);
    zeros &= ~parity;
    parity = parities(zeros);
    moves.by_2 = parity & rest;
    rest = (rest ^ moves.by_2) | moves.by_2 >> vec2(2u);
    zeros &= ~parity;
    parity = parities(zeros);
    moves.by_4 = parity & rest;
    rest = (rest ^ moves.by_4) | moves.by_4 >> vec2(4u);
    zeros &= ~parity;
    parity = parities(zeros);
    moves.by_8 = parity & rest;
    rest = (rest ^ moves.by_8) | moves.by_8 >> vec2(8u);
    zeros &= ~parity;
    moves.by_16 = parities(zeros) & rest;
    var moved = words;
    moved = (moved & ~moves.by_16) | (moved << vec2(16u) & moves.by_16);
    moved = (moved & ~moves.by_8) | (moved << vec2(8u) & moves.by_8);
    moved = (moved & ~moves.by_4) | (moved << vec2(4u) & moves.by_4);
    moved = (moved & ~moves.by_2) | (moved << vec2(2u) & moves.by_2);
    moved = (moved & ~moves.by_1) | (moved << vec2(1u) & moves.by_1);
    return moved & masks;
}

fn weight_half(first: u32, half: u32) -> u32 {
    let word = weights[first + half / 2u];
    return select(word.x, word.y, (half & 1u) == 1u);
}

// The next 32 bits of the weight whose words begin at `first`, from a place on.
fn next_bits(first: u32, begin: u32) -> u32 {
    var place = begin;
    var found = 0u;
    var count = 0u;
    while (count < 32u) {
        let inside = place & 31u;
        var bits = weight_half(first, place >> 5u) >> inside;
        if (inside > 0u && (place | 31u) + 1u < params.period) {
            bits |= weight_half(first, (place >> 5u) + 1u) << (32u - inside);
        }
        found |= bits << count;
        count += min(params.period - place, 32u);
        place = 0u;
    }
    return found;
}

@compute @workgroup_size(wg_size)
fn conditional(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stream = workgroup_index(workgroup, grid) * wg_size + lane;
    if (stream >= params.stream_count) {
        return;
    }
    let first = (params.first_weight + stream) * ((params.period + 63u) / 64u);
    var place = vec2(places[2u * stream], places[2u * stream + 1u]);
    for (var word = params.word_begin; word < params.word_end; word++) {
        let at = (params.first_input + stream) * params.word_count + word;
        let mask = tail_mask(word, params.word_count, params.tail_bits);
        let x = inputs[at];
        var made = vec2(0u);
        for (var half = 0u; half < 2u; half++) {
            let ones = select(x.x, x.y, half == 1u);
            // unipolar streams have no use for the zeros of the input
            let zeros = select(0u, ~ones & select(mask.x, mask.y, half == 1u), params.bipolar != 0u);
            var bits = vec2(next_bits(first, place.x), 0u);
            if (params.bipolar != 0u) {
                bits.y = next_bits(first, place.y);
            }
            let placed = deposit(bits, vec2(ones, zeros));
            place = (place + vec2(countOneBits(ones), countOneBits(zeros))) % vec2(params.period);
            let product = placed.x | (zeros ^ placed.y);
            made = select(vec2(product, made.y), vec2(made.x, product), half == 1u);
        }
        result[at] = made;
    }
    places[2u * stream] = place.x;
    places[2u * stream + 1u] = place.y;
}
