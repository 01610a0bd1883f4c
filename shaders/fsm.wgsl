// fsm: finite-state machines that read one to three bitstreams and write one or two.
// Computes:  for every stream and bit t of the words word_begin .. word_end, with the state s of the stream,
//              entry = table[s << input_count | bit t of first + 2 * of second + 4 * of third]
//              s = entry & 0xffff, bit t of result = bit 16 of entry, bit t of other = bit 24
// Work item: one invocation advances one stream by every bit of the call
// Layout:    second, third and other are not touched where input_count or output_count leaves them out
// Padding:   bits past the last one of a stream are 0 and change no state
// Limits:    table entries and states are below state_count, at most 2^16
// Exactness: integer; equals cpu_ref/fsm.zig bit for bit
#import abi
#import grid

override wg_size: u32 = 64u;
// The boundary's `input_count`, fixed when the pipeline is made: it stands in the innermost loop.
override inputs: u32 = 1u;

struct Half {
    state: u32,
    result: u32,
    other: u32,
}

// Advance by `count` bits of one half of a word.
fn advance(begin: u32, a: u32, b: u32, c: u32, count: u32) -> Half {
    var half = Half(begin, 0u, 0u);
    for (var t = 0u; t < count; t++) {
        var symbol = a >> t & 1u;
        if (inputs > 1u) {
            symbol |= (b >> t & 1u) << 1u;
        }
        if (inputs > 2u) {
            symbol |= (c >> t & 1u) << 2u;
        }
        let entry = table[half.state << inputs | symbol];
        half.state = entry & 0xffffu;
        half.result |= (entry >> 16u & 1u) << t;
        half.other |= (entry >> 24u & 1u) << t;
    }
    return half;
}

@compute @workgroup_size(wg_size)
fn fsm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stream = workgroup_index(workgroup, grid) * wg_size + lane;
    if (stream >= params.stream_count) {
        return;
    }
    var state = states[stream];
    for (var word = params.word_begin; word < params.word_end; word++) {
        let at = stream * params.word_count + word;
        let bits = select(64u, params.tail_bits, word + 1u == params.word_count);
        let a = first[at];
        var b = vec2(0u);
        if (inputs > 1u) {
            b = second[at];
        }
        var c = vec2(0u);
        if (inputs > 2u) {
            c = third[at];
        }
        let low = advance(state, a.x, b.x, c.x, min(bits, 32u));
        let high = advance(low.state, a.y, b.y, c.y, max(bits, 32u) - 32u);
        state = high.state;
        result[at] = vec2(low.result, high.result);
        if (params.output_count > 1u) {
            other[at] = vec2(low.other, high.other);
        }
    }
    states[stream] = state;
}
