// accumulate: the carries of accumulators that bitstreams are added to.
// Computes:  for every stream and bit t of the words word_begin .. word_end, with the number held of the stream,
//              held = cut(held + (ones of all inputs at t << shift) - offset) to -limit .. limit
//              bit t of result = held >= scale, in which case held = held - scale
// Work item: one invocation advances one stream by every bit of the call
// Layout:    inputs[k * input_stride + stream, word]; result from word first_word on
// Padding:   bits past the last one of a stream are 0 and change no number
// Limits:    2^15 inputs, a shift of 0 or 1, and a limit of 2^30, so that 32 bits hold every sum
// Exactness: integer; equals cpu_ref/accumulate.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;
// Bits in which the ones at one time are counted, 8 or 16.
override field: u32 = 8u;

// Ones at the times of half a word: bit t is field t / field of number t % field.
struct Tally {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

var<private> held: i32;
var<private> carries: u32;
var<private> left: u32;

fn added(tally: Tally, bits: u32) -> Tally {
    let mask = select(0x00010001u, 0x01010101u, field == 8u);
    var sum = tally;
    sum.a += vec4(bits) >> vec4(0u, 1u, 2u, 3u) & vec4(mask);
    sum.b += vec4(bits) >> vec4(4u, 5u, 6u, 7u) & vec4(mask);
    if (field > 8u) {
        sum.c += vec4(bits) >> vec4(8u, 9u, 10u, 11u) & vec4(mask);
        sum.d += vec4(bits) >> vec4(12u, 13u, 14u, 15u) & vec4(mask);
    }
    return sum;
}

// One bit, unless none is left.
fn step(ones: u32) {
    let limit = i32(params.limit);
    let scale = i32(params.scale);
    let sum = clamp(held + i32(ones << params.shift) - i32(params.offset), -limit, limit);
    let full = sum >= scale && left > 0u;
    held = select(held, select(sum, sum - scale, full), left > 0u);
    carries = carries >> 1u | select(0u, 0x80000000u, full);
    left -= min(left, 1u);
}

fn step_four(ones: vec4<u32>) {
    step(ones.x);
    step(ones.y);
    step(ones.z);
    step(ones.w);
}

// The first `bits` times of half a word.
fn advance(tally: Tally, bits: u32) -> u32 {
    let lowest = vec4((1u << field) - 1u);
    left = bits;
    var rest = tally;
    for (var t = 0u; t < 32u; t += field) {
        step_four(rest.a & lowest);
        step_four(rest.b & lowest);
        if (field > 8u) {
            step_four(rest.c & lowest);
            step_four(rest.d & lowest);
        }
        rest = Tally(rest.a >> vec4(field), rest.b >> vec4(field), rest.c >> vec4(field), rest.d >> vec4(field));
    }
    return carries;
}

@compute @workgroup_size(wg_size)
fn accumulate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stream = workgroup_index(workgroup, grid) * wg_size + lane;
    if (stream >= params.stream_count) {
        return;
    }
    held = numbers[stream];
    for (var word = params.word_begin; word < params.word_end; word++) {
        var low = Tally();
        var high = Tally();
        var at = stream * params.word_count + word;
        for (var k = 0u; k < params.input_count; k++) {
            let bits = inputs[at];
            low = added(low, bits.x);
            high = added(high, bits.y);
            at += params.input_stride * params.word_count;
        }
        let bits = select(64u, params.tail_bits, word + 1u == params.word_count);
        let first = advance(low, min(bits, 32u));
        let second = advance(high, max(bits, 32u) - 32u);
        result[params.first_word + stream * params.word_count + word] = vec2(first, second);
    }
    numbers[stream] = held;
}
