// propagate: spikes into the inboxes of the neurons behind.
// Computes:  for every source i whose bit of step t = clock[0] + step_offset + step is 1, and every
//            synapse of it to a target j in target_begin .. target_end:
//              inbox[(t + delay) % slot_count][j] += weight
// Work item: one workgroup looks at the spikes of group_sources sources and walks a chunk of each row
// Layout:    word of source i at word_begin + i * word_stride, its bit first_bit + step; synapses of
//            source i at rows[i] .. rows[i + 1], or where dense is 1 at i * target_count, all targets
//            in order; inbox: slots of target_count
// Limits:    first_bit + step_count is at most 64
// Exactness: integer, sums wrap at 32 bits; equals cpu_ref/propagate.zig bit for bit
#import abi
#import grid
#import half
#import word_bits

override wg_size: u32 = 64u;
override group_sources: u32 = 32u;
/// Synapses of a row that a workgroup walks; the workgroups beside it walk the others.
override row_chunk: u32 = 1024u;

@compute @workgroup_size(wg_size)
fn propagate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = workgroup_index(workgroup, grid);
    let chunks = (params.longest_row + row_chunk - 1u) / row_chunk;
    let first = index / chunks * group_sources;
    let chunk = index % chunks * row_chunk;
    let last = min(first + group_sources, params.source_count);
    let arrival = clock[0] + params.step_offset + params.delay;
    for (var source = first; source < last; source++) {
        let word = words[params.word_begin + source * params.word_stride];
        var fired = moved_down(word, params.first_bit) & lowest(params.step_count);
        if (all(fired == vec2(0u))) {
            continue;
        }
        let whole = source * params.target_count;
        var begin = whole + chunk;
        var end = whole + params.target_count;
        if (params.dense == 0u) {
            begin = rows[source] + chunk;
            end = rows[source + 1u];
        }
        end = min(end, begin + row_chunk);
        for (var side = 0u; side < 2u; side++) {
            var bits = fired[side];
            while (bits != 0u) {
                let step = 32u * side + firstTrailingBit(bits);
                bits &= bits - 1u;
                let slot = (arrival + step) % params.slot_count * params.target_count;
                for (var synapse = begin + lane; synapse < end; synapse += wg_size) {
                    var target_index = synapse - whole;
                    if (params.dense == 0u) {
                        target_index = targets[synapse];
                    }
                    if (target_index >= params.target_begin && target_index < params.target_end) {
                        atomicAdd(&inbox[slot + target_index], half(weights[synapse / 2u], synapse));
                    }
                }
            }
        }
    }
}
