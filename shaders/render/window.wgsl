// window: the panels of a running network, drawn from the buffers in which it runs.
// raster:        spikes; time to the right, one column of pixels for some steps or the reverse
// potentials:    one cell for each neuron, blue below rest, warm towards the threshold, its
//                population's colour while it is refractory
// rates:         the spiking share of a population, smoothed
// distribution:  potentials of a population, from one threshold's distance below rest up to the threshold
// backdrop:      the ground and the grid behind curves
// labels:        texts, made by the host
// The parameters are those of tally.wgsl; see scgpu/_render.py. A draw fills its viewport.
@group(0) @binding(0) var<storage, read> history: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> neurons: array<u32>;
@group(0) @binding(2) var<storage, read> totals: array<u32>;
@group(0) @binding(3) var<storage, read> bins: array<u32>;
@group(0) @binding(4) var texts: texture_2d<f32>;

const GROUND = vec3(0.043, 0.055, 0.075);
const GRID = vec3(0.105, 0.130, 0.165);

// Neurons that a pixel looks at; of more, evenly spaced ones stand for their neighbours.
const MOST_NEURONS = 64u;

@vertex
fn corners(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    // One triangle that covers the viewport.
    return vec4(f32(index & 1u) * 4.0 - 1.0, f32(index >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

fn colour() -> vec3<f32> {
    return vec3(params.red, params.green, params.blue);
}

// From here on the rings hold spikes, and totals before them: all but one block.
fn oldest_step() -> u32 {
    let blocks = (params.step + 63u) / 64u + 1u;
    return select(0u, (blocks - params.ring_blocks) * 64u, blocks > params.ring_blocks);
}

// Spikes of the population in all steps before t, for t within the ring or 0.
fn total_before(t: u32) -> u32 {
    if (t == 0u) {
        return 0u;
    }
    let ring = 64u * params.ring_blocks;
    return totals[params.population * ring + ((t - 1u) & (ring - 1u))];
}

// The steps (begin, end) of a pixel column, empty where there are none. Columns hold the same steps
// from frame to frame, so that the picture moves by whole columns and does not shimmer.
fn steps_of(x: u32) -> vec2<u32> {
    let back = (u32(params.width) - 1u - x) >> params.pixels_shift;
    let newest = (max(params.step, 1u) - 1u) >> params.steps_shift;
    if (params.step == 0u || back > newest) {
        return vec2(0u);
    }
    let begin = (newest - back) << params.steps_shift;
    if (begin < oldest_step()) {
        return vec2(0u);
    }
    return vec2(begin, min(begin + (1u << params.steps_shift), params.step));
}

// Place in the ring of the half word that holds a step: its row, and which half.
fn half_of(step: u32) -> vec2<u32> {
    let slot = (step / 64u) & (params.ring_blocks - 1u);
    return vec2(slot * params.total + params.first, (step / 32u) & 1u);
}

// Light of the spikes of some neurons, every stride-th of them, in the steps of a column. Where columns are
// narrow a spike glows on through the two after it.
fn light_of(begin: u32, end: u32, stride: u32, steps: vec2<u32>) -> f32 {
    let span = steps.y - steps.x;
    let glowing = params.pixels_shift == 0u && params.steps_shift <= 2u;
    let place = half_of(steps.x); // a column lies within one half of a word
    let used = (steps.y - 1u) % 32u + 1u;
    let before = half_of(max(steps.x, 32u) - 32u);
    let reaches = glowing && used < 3u * span && steps.x >= oldest_step() + 32u;
    var now = 0u;
    var glow = 0.0;
    for (var i = begin; i < end; i += stride) {
        // The column's last step comes to the highest bit.
        var bits = history[place.x + i][place.y] << (32u - used);
        if (reaches) {
            bits |= history[before.x + i][before.y] >> used;
        }
        now += countOneBits(bits >> (32u - span));
        if (glowing && bits != 0u) {
            let rest = bits << span;
            glow += 0.6 * f32(countOneBits(rest >> (32u - span)));
            glow += 0.3 * f32(countOneBits((rest << span) >> (32u - span)));
        }
    }
    return (f32(now) + glow) * f32(stride);
}

@fragment
fn raster(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let x = u32(position.x - params.left);
    let steps = steps_of(x);
    if (steps.x == steps.y) {
        return vec4(GROUND, 1.0);
    }
    // Rows of many neurons are as high as a dot that can be seen, those of one as high as they come.
    let neurons_per_pixel = f32(params.count) / params.height;
    let dot_pixels = max(round(1.6 * params.line_pixels), 1.0);
    let row_pixels = select(1.0, dot_pixels, neurons_per_pixel * dot_pixels >= 1.0);
    let y = floor((position.y - params.top) / row_pixels) * row_pixels;
    let begin = min(u32(y * neurons_per_pixel), params.count - 1u);
    let end = min(max(u32((y + row_pixels) * neurons_per_pixel), begin + 1u), params.count);
    let stride = (end - begin + MOST_NEURONS - 1u) / MOST_NEURONS;
    let spikes = light_of(begin, end, stride, steps);

    // Exposure: a pixel with as many spikes as the population's average pixel is dim, one with several times
    // as many is bright, and a lone spike is always seen.
    let oldest = oldest_step();
    let seen = max(params.step - oldest, 1u);
    let mean = f32(total_before(params.step) - total_before(oldest)) / (f32(seen) * f32(params.count));
    let expected = mean * f32(end - begin) * f32(steps.y - steps.x);
    var light = 1.0 - exp(-spikes / (0.6 + 1.5 * expected));

    // Rows of single neurons are apart by a dark line.
    if (neurons_per_pixel < 0.25 && fract((y + 0.5) * neurons_per_pixel) > 1.0 - 1.2 * neurons_per_pixel) {
        light *= 0.15;
    }
    let age = (params.width - 1.0 - f32(x)) / params.width;
    let fresh = exp(-age * 36.0);
    let tint = mix(colour() * (1.0 - 0.3 * age), vec3(1.0), 0.55 * fresh);
    return vec4(mix(GROUND, tint, light), 1.0);
}

// From one threshold's distance below rest (-1) over rest (0) to the threshold (1).
fn heat(place: f32) -> vec3<f32> {
    let low = vec3(0.118, 0.353, 0.620);
    let rest = vec3(0.062, 0.080, 0.108);
    let warm = vec3(0.420, 0.155, 0.360);
    let hot = vec3(0.940, 0.510, 0.290);
    let brim = vec3(1.000, 0.930, 0.720);
    if (place < 0.0) {
        return mix(rest, low, min(-place, 1.0));
    }
    if (place < 0.45) {
        return mix(rest, warm, place / 0.45);
    }
    if (place < 0.8) {
        return mix(warm, hot, (place - 0.45) / 0.35);
    }
    return mix(hot, brim, min((place - 0.8) / 0.2, 1.0));
}

@fragment
fn potentials(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let place = vec2(position.x - params.left, position.y - params.top);
    // As many columns as make the cells about square.
    let columns = max(ceil(sqrt(f32(params.count) * params.width / params.height)), 1.0);
    let rows = ceil(f32(params.count) / columns);
    let cell = vec2(params.width / columns, params.height / rows);
    let at = floor(place / cell);
    let neuron = u32(at.y) * u32(columns) + u32(at.x);
    if (neuron >= params.count) {
        return vec4(GROUND, 1.0);
    }
    let within = place - at * cell;
    if (min(cell.x, cell.y) >= 4.0 && (within.x < 1.0 || within.y < 1.0)) {
        return vec4(GROUND, 1.0);
    }
    let pair = neurons[neuron];
    if (pair >> 16u != 0u) {
        return vec4(mix(colour(), vec3(1.0), 0.25), 1.0);
    }
    let v = f32(i32(pair << 16u) >> 16u);
    return vec4(heat((v - params.rest) / max(params.threshold - params.rest, 1.0)), 1.0);
}

@fragment
fn backdrop(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let from_right = params.left + params.width - position.x;
    let from_bottom = params.top + params.height - position.y;
    let vertical = params.tick_pixels > 0.0 && from_right > 1.0 && from_right % max(params.tick_pixels, 1.0) < 1.0;
    let horizontal = from_bottom % (params.height / 4.0) < 1.0;
    return vec4(select(GROUND, GRID, vertical || horizontal), 1.0);
}

// Spiking share in the steps around the column's last, between 0 and 1 for the panel's height.
fn rate(x: f32) -> f32 {
    let steps = steps_of(u32(clamp(x, 0.0, params.width - 1.0)));
    if (steps.x == steps.y) {
        return -1.0;
    }
    let half = params.smooth_steps / 2u;
    let end = min(steps.y + half, params.step);
    let begin = max(max(steps.y, half) - half, oldest_step());
    let spikes = total_before(end) - total_before(begin);
    return f32(spikes) / (f32(end - begin) * f32(params.count) * params.rate_scale);
}

// Between the middles of two columns in a straight line.
fn rate_between(x: f32) -> f32 {
    let pixels = f32(1u << params.pixels_shift);
    let from_right = params.width - x;
    let place = from_right / pixels - 0.5;
    let near = params.width - (floor(place) + 0.5) * pixels;
    let far = near - pixels;
    let a = rate(near - 0.5);
    let b = rate(far - 0.5);
    return select(mix(a, b, fract(place)), -1.0, a < 0.0 || b < 0.0);
}

@fragment
fn rates(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let x = position.x - params.left;
    let y = params.top + params.height - position.y;
    let before = rate_between(x - 0.5);
    let after = rate_between(x + 0.5);
    if (before < 0.0 || after < 0.0) {
        return vec4(0.0);
    }
    let low = min(before, after) * params.height;
    let high = max(before, after) * params.height;
    let away = max(max(low - y, y - high), 0.0);
    let line = 1.0 - smoothstep(0.3, 1.3, away / params.line_pixels);
    let fill = select(0.0, 0.03 + 0.10 * y / max(high, 1.0), y < high);
    let alpha = max(0.95 * line, fill);
    return vec4(colour() * alpha, alpha);
}

@fragment
fn distribution(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let x = (position.x - params.left) / params.width * f32(BIN_COUNT);
    let y = (params.top + params.height - position.y) / params.height;
    let own = params.population * BIN_COUNT;
    var most = 1u;
    // The first bin has all that is below, and may be cut.
    for (var bin = 1u; bin < BIN_COUNT; bin++) {
        most = max(most, bins[own + bin]);
    }
    let bin = min(u32(x), BIN_COUNT - 1u);
    let share = min(f32(bins[own + bin]) / f32(most), 1.0) * 0.92;
    if (y > share) {
        return vec4(0.0);
    }
    let gap = select(1.0, 0.45, fract(x) * params.width / f32(BIN_COUNT) < 1.0);
    let edge = select(0.30, 0.85, (share - y) * params.height < params.line_pixels * 1.5);
    return vec4(colour(), 1.0) * edge * gap;
}

@fragment
fn labels(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let text = textureLoad(texts, vec2<u32>(position.xy), 0);
    return vec4(text.rgb * text.a, text.a);
}
