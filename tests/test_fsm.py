"""fsm: known answers of every unit, parity, accuracy against the functions, pieces, refusals."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend

LONG = 1 << 18  # bits of a stream whose value is known to about 0.002


def bits(text: str, device: scgpu.Device | str, polarity: Any = "unipolar") -> scgpu.Bitstream:
    """A stream from its bits, in order."""
    return scgpu.Bitstream.from_bits([int(bit) for bit in text], polarity=polarity, device=device)


def text(stream: scgpu.Bitstream) -> str:
    return "".join(map(str, stream.bits().tolist()))


def random_machine(seed: int, n_states: int, n_inputs: int, n_outputs: int) -> scgpu.StateMachine:
    rng = np.random.default_rng(seed)
    shape = n_states, 1 << n_inputs
    outputs = [rng.integers(0, 2, shape) for _ in range(n_outputs)]
    return scgpu.StateMachine(rng.integers(0, n_states, shape), *outputs, initial=int(rng.integers(n_states)))


def random_streams(number: int, shape: tuple[int, ...], length: int, device: Any) -> list[scgpu.Bitstream]:
    rng = np.random.default_rng(number)
    return [
        scgpu.Bitstream.from_bits(rng.integers(0, 2, (*shape, length), dtype=np.uint8), device=device)
        for _ in range(number)
    ]


def select_for(x: scgpu.Bitstream, value: float = 0.5, tensor_id: int = 0) -> scgpu.Bitstream:
    p = np.full(x.shape, value)
    return scgpu.encode(p, x.length, 11, purpose="select", tensor_id=tensor_id, device=x.device)


def encoded(values: Any, polarity: Any = "unipolar", tensor_id: int = 0) -> scgpu.Bitstream:
    return scgpu.encode(values, LONG, 5, polarity=polarity, tensor_id=tensor_id, device="cpu")


def test_fsm_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("fsm", chosen, oracle, number=60)


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize(
    ("n_inputs", "n_states"), [(1, 7), (1, 32), (1, 33), (1, 512), (2, 5), (2, 32), (2, 33), (3, 4), (3, 129)]
)
def test_fsm_equals_the_oracle_where_tables_of_several_bits_pay(
    chosen: scgpu.Device, n_inputs: int, n_states: int, n_outputs: int
) -> None:
    # 45 streams of 2085 bits pay for all of them; 45 is no multiple of the streams that go side by side
    machine = random_machine(n_states, n_states, n_inputs, n_outputs)
    results = machine.run(*random_streams(n_inputs, (45,), 2085, chosen))
    expected = machine.run(*random_streams(n_inputs, (45,), 2085, "numpy"))
    assert len(results) == n_outputs
    for got, right in zip(results, expected, strict=True):
        assert got.device == chosen and got == right


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_fsm_of_large_machines_over_many_streams(chosen: scgpu.Device, n_inputs: int, n_outputs: int) -> None:
    # look-ups of 64 streams, and of 32, are gathered where a processor can; 3 streams are left
    machine = random_machine(n_inputs, 1 << 16, n_inputs, n_outputs)
    for length in (64, 150):
        inputs = random_streams(n_inputs, (99,), length, chosen)
        states, expected = (np.arange(99, dtype=np.uint32) * 600 for _ in range(2))
        results = machine.run(*inputs, states=states)
        right = machine.run(*random_streams(n_inputs, (99,), length, "numpy"), states=expected)
        assert results == right and np.array_equal(states, expected)


@cache
def long_run(device: scgpu.Device | str) -> scgpu.Bitstream:
    """Streams of more bits than software rasterisers allow loop trips to an invocation."""
    return random_machine(2, 9, 1, 1).run(*random_streams(1, (3,), (1 << 16) + 70, device))[0]


def test_fsm_of_streams_that_take_several_dispatches(chosen: scgpu.Device) -> None:
    assert long_run(chosen) == long_run("numpy")


def test_fsm_of_one_stream_and_of_none(chosen: scgpu.Device) -> None:
    machine = random_machine(3, 4, 2, 2)
    for shape in ((), (0,), (2, 0, 3), (2, 3)):
        for got, right in zip(
            machine.run(*random_streams(2, shape, 77, chosen)),
            machine.run(*random_streams(2, shape, 77, "numpy")),
            strict=True,
        ):
            assert got.shape == shape and got == right


def test_fsm_in_pieces(chosen: scgpu.Device) -> None:
    machine = random_machine(4, 50, 2, 1)
    inputs = [one.bits() for one in random_streams(2, (2, 3), 1000, chosen)]
    states = np.full((2, 3), machine.initial, np.uint32)
    whole = machine.run(*(scgpu.Bitstream.from_bits(one, device=chosen) for one in inputs), states=states)[0].bits()
    pieces, in_pieces = [], np.full((2, 3), machine.initial, np.uint32)
    for begin, end in ((0, 1), (1, 65), (65, 500), (500, 1000)):
        streams = [scgpu.Bitstream.from_bits(one[..., begin:end], device=chosen) for one in inputs]
        pieces.append(machine.run(*streams, states=in_pieces)[0].bits())
    assert np.array_equal(np.concatenate(pieces, axis=-1), whole)
    assert np.array_equal(in_pieces, states) and in_pieces.any()


def test_fsm_of_the_largest_machine(chosen: scgpu.Device) -> None:
    # a ring of 65,536 states that a one turns: the state is the number of ones so far
    ring = np.arange(1 << 16)
    machine = scgpu.StateMachine(np.stack([ring, (ring + 1) % (1 << 16)], axis=1), ring & 1, initial=65_530)
    states = np.full((), machine.initial, np.uint32)
    (result,) = machine.run(bits("1" * 100, chosen), states=states)
    assert states == 94
    assert text(result) == "01" * 50


def test_fsm_known_answers_of_counters(chosen: scgpu.Device) -> None:
    x = bits("10001111", chosen, "bipolar")
    assert text(scgpu.stanh(x, 4)) == "11100011"  # states 2 3 2 1 0 1 2 3
    assert text(scgpu.sexp(x, 4, 1)) == "10111110"
    assert scgpu.sexp(x, 4, 1).polarity == "unipolar" and scgpu.stanh(x, 4).polarity == "bipolar"
    x, k = bits("11000111", chosen, "bipolar"), bits("01011000", chosen)
    assert text(scgpu.linear_gain(x, k, 4)) == "11110001"  # states 2 2 3 2 1 0 1 2
    assert text(scgpu.relu(bits("00010011", chosen, "bipolar"), depth=2)) == "01010111"  # counter 2 1 2 1 2 1 2 3


def test_fsm_known_answers_of_correlation(chosen: scgpu.Device) -> None:
    a, b = scgpu.synchronise(bits("1001100111", chosen), bits("0110001100", chosen))
    assert (text(a), text(b)) == ("0101001101", "0101001100")  # the last ones have no partner: one is withheld
    a, b = scgpu.synchronise(bits("111000", chosen), bits("000111", chosen), depth=2)
    assert (text(a), text(b)) == ("001110", "000110")
    a, b = scgpu.desynchronise(bits("1101010", chosen), bits("1101000", chosen))
    assert (text(a), text(b)) == ("0111010", "1100100")
    a, b = scgpu.desynchronise(bits("11100000", chosen), bits("11100000", chosen), depth=2)
    assert (text(a), text(b)) == ("01110000", "10101000")
    x = bits("101100", chosen, "bipolar")
    one, two = bits("100110", chosen), bits("010010", chosen)
    assert text(scgpu.decorrelate(x, one)) == "100111"
    assert text(scgpu.decorrelate(x, one, two)) == "100111"  # slots 1 2 0 1 3 0 of 0 1 0 1
    assert scgpu.decorrelate(x, one).polarity == "bipolar"


def test_fsm_known_answers_of_arithmetic(chosen: scgpu.Device) -> None:
    assert text(scgpu.divide(bits("0100001", chosen), bits("0101001", chosen))) == "0110001"
    x, y, select = bits("00100000", chosen), bits("00100100", chosen), bits("01001001", chosen)
    assert text(scgpu.divide(x, y, select)) == "01110001"
    assert text(scgpu.square_root(bits("10001000", chosen), bits("00000110", chosen))) == "10011000"
    assert text(scgpu.square_root(bits("10000000", chosen), bits("11111111", chosen))) == "10000100"
    assert text(scgpu.jk_flip_flop(bits("101101", chosen), bits("001111", chosen))) == "011010"
    t = bits("11101", chosen)
    assert text(scgpu.jk_flip_flop(t, t)) == "01011"


def independent(n: int = 19) -> Any:
    return np.linspace(-0.9, 0.9, n)


@pytest.mark.parametrize("n_states", [2, 4, 8, 16])
def test_stanh_tends_to_the_hyperbolic_tangent(n_states: int) -> None:
    v = independent()
    y = scgpu.stanh(encoded(v, "bipolar"), n_states).value()
    # the counter forgets in about n^2 bits, so so many fewer are independent
    assert np.abs(y - np.tanh(n_states / 2 * np.arctanh(v))).max() < 0.002 * n_states
    # Brown and Card's form holds near 0
    small = np.abs(v) < 0.35
    assert np.abs(y - np.tanh(n_states * v / 2))[small].max() < 0.03


@pytest.mark.parametrize(("n_states", "gain"), [(16, 1), (32, 2), (64, 4), (5, 2)])
def test_sexp_tends_to_the_exponential(n_states: int, gain: int) -> None:
    v = independent(18)
    y = scgpu.sexp(encoded(v, "bipolar"), n_states, gain).value()
    r = (1 + v) / (1 - v)
    assert np.abs(y - (1 - r ** (n_states - gain)) / (1 - r**n_states)).max() < 0.01
    if n_states > 5:
        positive = (v > 0.1) & (v < 0.5)
        assert np.abs(y - np.exp(-2 * gain * v))[positive].max() < 0.06
        assert y[v < -0.2].min() > 0.98


@pytest.mark.parametrize("gain", [1.5, 3.0, 8.0])
def test_linear_gain_multiplies_and_saturates(gain: float) -> None:
    v = independent()
    x = encoded(v, "bipolar")
    y = scgpu.linear_gain(x, select_for(x, (gain - 1) / (gain + 1)), 64).value()
    assert np.abs(y - np.clip(gain * v, -1, 1)).max() < 0.01 * gain


def test_relu_is_the_larger_of_the_value_and_zero() -> None:
    v = independent()
    x = encoded(v, "bipolar")
    errors = np.abs(scgpu.relu(x).value() - np.maximum(v, 0))
    assert errors[np.abs(v) > 0.15].max() < 0.006
    assert errors.max() < 2**-4  # at 0, a walk that is reflected
    assert np.abs(scgpu.relu(x, depth=9).value() - np.maximum(v, 0)).max() < 0.012


def operands() -> tuple[Any, scgpu.Bitstream, scgpu.Bitstream]:
    """All pairs of some values, in independent streams."""
    p = np.stack(np.meshgrid(np.linspace(0.05, 0.95, 7), np.linspace(0.05, 0.95, 7))).reshape(2, -1)
    return p, encoded(p[0]), encoded(p[1], tensor_id=1)


@given(depth=st.sampled_from((1, 2, 5, 30)), length=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_synchronise_and_desynchronise_lose_no_more_than_their_depth(depth: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for unit, kept in ((scgpu.synchronise, depth), (scgpu.desynchronise, (depth + 1) // 2)):
        given_bits = rng.integers(0, 2, (2, 9, length), dtype=np.uint8)
        inputs = [scgpu.Bitstream.from_bits(one, device="cpu") for one in given_bits]
        for before, after in zip(inputs, unit(*inputs, depth), strict=True):
            ahead = np.cumsum(before.bits(), axis=-1, dtype=int) - np.cumsum(after.bits(), axis=-1, dtype=int)
            assert ahead.min() >= 0 and ahead.max() <= kept


def test_synchronise_makes_and_the_smaller_value() -> None:
    p, a, b = operands()
    errors = []
    for depth in (1, 8):
        left, right = scgpu.synchronise(a, b, depth)
        errors.append(np.abs((left & right).value() - p.min(0)).max())
        assert np.abs((left | right).value() - p.max(0)).max() == pytest.approx(errors[-1], abs=0.01)
    assert errors[0] < 0.15 and errors[1] < 0.035
    assert np.abs((a & b).value() - p.min(0)).max() > 0.24


def test_desynchronise_makes_or_the_sum() -> None:
    p, a, b = operands()
    errors = []
    for depth in (1, 16):
        left, right = scgpu.desynchronise(a, b, depth)
        errors.append(np.abs((left | right).value() - np.minimum(p.sum(0), 1)).max())
        assert np.abs((left & right).value() - np.maximum(p.sum(0) - 1, 0)).max() == pytest.approx(errors[-1], abs=0.01)
    assert errors[0] < 0.15 and errors[1] < 0.035
    assert np.abs((a | b).value() - np.minimum(p.sum(0), 1)).max() > 0.24


@pytest.mark.parametrize("select_count", [1, 2])
def test_decorrelate_makes_and_the_square(select_count: int) -> None:
    p = np.linspace(0.05, 0.95, 13)
    x = encoded(p)
    shuffled = scgpu.decorrelate(x, *(select_for(x, tensor_id=k) for k in range(select_count)))
    assert np.abs(shuffled.count().astype(int) - x.count().astype(int)).max() <= 2**select_count
    assert np.abs((x & x).value() - p**2).max() > 0.2
    assert np.abs((x & shuffled).value() - p**2).max() < 0.006


def test_divide_tends_to_the_quotient() -> None:
    p = operands()[0]
    p = p[:, p[0] <= p[1]]
    x, y = encoded(p[0]), encoded(p[1])  # of the same random numbers: the ones of x lie among those of y
    assert ((x & y) == x) is True
    for select in (None, select_for(x)):
        assert np.abs(scgpu.divide(x, y, select).value() - p[0] / p[1]).max() < 0.02
    # independent operands need the synchroniser, and are divided less well
    x = encoded(p[0], tensor_id=1)
    small = p[0] < 0.75 * p[1]
    for select, bound in ((None, 0.14), (select_for(x), 0.095)):
        synchronised = scgpu.divide(*scgpu.synchronise(x, y, 4), select).value()
        assert np.abs(synchronised - p[0] / p[1])[small].max() < bound
        assert np.abs(scgpu.divide(x, y, select).value() - p[0] / p[1])[small].max() > 0.25


def test_square_root_tends_to_the_root() -> None:
    p = np.linspace(0.01, 1, 34)
    x = encoded(p)
    errors = scgpu.square_root(x, select_for(x)).value() - np.sqrt(p)
    assert np.abs(errors).max() < 0.031 + 0.005
    assert np.sqrt(np.mean(errors**2)) < 0.018
    assert scgpu.square_root(*(encoded([0.0]), select_for(encoded([0.0])))).count().tolist() == [0]


def test_toggles_halve_exactly(chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(8)
    a, b = (rng.random((2, 60, 130)) < rng.random((2, 60, 1))).astype(np.uint8)
    x, y = (scgpu.Bitstream.from_bits(one, polarity="bipolar", device=chosen) for one in (a, b))
    state, expected = np.zeros(60, np.uint8), np.empty_like(a)
    for t in range(130):
        expected[:, t] = np.where(a[:, t] == b[:, t], a[:, t], state)
        state ^= a[:, t] ^ b[:, t]
    added = scgpu.toggle_add(x, y)
    assert added.polarity == "bipolar" and np.array_equal(added.bits(), expected)
    assert np.array_equal(added.count(), (a.sum(axis=1) + b.sum(axis=1)) // 2)
    u = scgpu.Bitstream.from_bits(a, device=chosen)
    toggled = scgpu.t_flip_flop(u)
    assert np.array_equal(toggled.bits(), (np.cumsum(a, axis=1) - a) % 2)
    assert toggled == scgpu.jk_flip_flop(u, u) and np.array_equal((u & toggled).count(), a.sum(axis=1) // 2)


def test_jk_flip_flop_tends_to_the_share() -> None:
    p, j, k = operands()
    assert np.abs(scgpu.jk_flip_flop(j, k).value() - p[0] / (p[0] + p[1])).max() < 0.01
    assert np.abs(scgpu.jk_flip_flop(j, j).value() - 0.5).max() < 0.01


def test_fsm_across_devices(chosen: scgpu.Device) -> None:
    a, b = random_streams(2, (5,), 100, chosen)
    left, right = scgpu.synchronise(a, b.to("numpy"))
    assert left.device == chosen and right.device == chosen
    for got, expected in zip((left, right), scgpu.synchronise(a.to("numpy"), b), strict=True):
        assert got == expected and expected.device.kind == "numpy"


def test_fsm_rejects_machines() -> None:
    for wrong in ([[0]], [[0, 0, 0]], [0, 0], np.zeros((65_537, 2), int), np.zeros((0, 2), int)):
        with pytest.raises(ValueError, match=r"transitions must have shape \(S, 2\), \(S, 4\) or \(S, 8\)"):
            scgpu.StateMachine(wrong, [0])
    with pytest.raises(ValueError, match=r"transitions must be from 0 to 1; got 2 at index \(1, 0\)"):
        scgpu.StateMachine([[0, 1], [2, 0]], [0, 1])
    with pytest.raises(TypeError, match="transitions must hold integers; got dtype float64"):
        scgpu.StateMachine([[0.0, 1.0]], [0])
    with pytest.raises(ValueError, match=r"outputs must be from 0 to 1; got 2 at index \(1,\)"):
        scgpu.StateMachine([[0, 1], [1, 0]], [0, 2])
    with pytest.raises(ValueError, match=r"second_outputs must have shape \(2,\) or \(2, 2\); got \(3,\)"):
        scgpu.StateMachine([[0, 1], [1, 0]], [0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="initial must be from 0 to 1; got 2"):
        scgpu.StateMachine([[0, 1], [1, 0]], [0, 1], initial=2)


def test_fsm_rejects_inputs(chosen: scgpu.Device) -> None:
    machine = random_machine(5, 3, 2, 1)
    a, b = random_streams(2, (4,), 100, chosen)
    bad: Any = a.words
    with pytest.raises(ValueError, match="this machine has 2 inputs; got 1"):
        machine.run(a)
    with pytest.raises(TypeError, match="this machine needs bitstreams; input 1 is of type ndarray"):
        machine.run(a, bad)
    with pytest.raises(ValueError, match=r"equal shape; input 0 has \(4,\), input 1 has \(2, 2\)"):
        machine.run(a, random_streams(1, (2, 2), 100, chosen)[0])
    with pytest.raises(ValueError, match="equal length; input 0 has 100, input 1 has 99"):
        machine.run(a, random_streams(1, (4,), 99, chosen)[0])
    bad = np.zeros(4, np.int64)
    with pytest.raises(TypeError, match="states must be an ndarray of uint32; got dtype int64"):
        machine.run(a, b, states=bad)
    with pytest.raises(ValueError, match=r"states must have the shape of the inputs, \(4,\); got \(3,\)"):
        machine.run(a, b, states=np.zeros(3, np.uint32))
    with pytest.raises(ValueError, match=r"states must be from 0 to 2; got 3 at index \(2,\)"):
        machine.run(a, b, states=np.array([0, 1, 3, 0], np.uint32))
    with pytest.raises(ValueError, match="states must be C-contiguous and writeable"):
        machine.run(a, b, states=np.zeros(8, np.uint32)[::2])
    bad = "both"
    with pytest.raises(ValueError, match="polarity must be one of"):
        machine.run(a, b, polarity=bad)


def test_fsm_units_reject() -> None:
    one = scgpu.encode([0.5, 0.5], 100, device="cpu")
    two = scgpu.encode([0.5, 0.5], 100, polarity="bipolar", device="cpu")
    for unit in (lambda: scgpu.stanh(one, 4), lambda: scgpu.sexp(one, 4, 1), lambda: scgpu.relu(one)):
        with pytest.raises(ValueError, match="needs bipolar streams; got unipolar ones"):
            unit()
    with pytest.raises(ValueError, match="linear_gain's x needs bipolar streams; got unipolar ones"):
        scgpu.linear_gain(one, one, 4)
    with pytest.raises(ValueError, match="linear_gain's k needs unipolar streams; got bipolar ones"):
        scgpu.linear_gain(two, two, 4)
    for pair in (scgpu.divide, scgpu.square_root, scgpu.jk_flip_flop):
        with pytest.raises(ValueError, match="needs unipolar streams; got bipolar ones"):
            pair(two, one)
    for pair in (scgpu.divide, scgpu.jk_flip_flop):
        with pytest.raises(ValueError, match="needs unipolar streams; got bipolar ones"):
            pair(one, two)
    with pytest.raises(ValueError, match="t_flip_flop needs unipolar streams; got bipolar ones"):
        scgpu.t_flip_flop(two)
    with pytest.raises(ValueError, match="toggle_add needs inputs of equal polarity"):
        scgpu.toggle_add(one, two)
    for both in (scgpu.synchronise, scgpu.desynchronise):
        with pytest.raises(ValueError, match="equal polarity; a has 'unipolar', b has 'bipolar'"):
            both(one, two)
        with pytest.raises(ValueError, match="depth must be from 1 to 32767; got 0"):
            both(one, one, 0)
    with pytest.raises(ValueError, match="n_states must be even"):
        scgpu.stanh(two, 5)
    with pytest.raises(ValueError, match="n_states must be from 2 to 65536; got 65538"):
        scgpu.linear_gain(two, one, 65_538)
    with pytest.raises(ValueError, match="gain must be from 1 to 3; got 4"):
        scgpu.sexp(two, 4, 4)
    with pytest.raises(ValueError, match="depth must be from 1 to 16; got 17"):
        scgpu.relu(two, 17)
    with pytest.raises(ValueError, match="decorrelate takes one or two select streams; got 0"):
        scgpu.decorrelate(one)
    bad: Any = 0.5
    with pytest.raises(TypeError, match="stanh needs bitstreams; x is of type float"):
        scgpu.stanh(bad, 4)


def test_fsm_with_the_deepest_units() -> None:
    a, b = random_streams(2, (2,), 1000, "cpu")
    for unit in (scgpu.synchronise, scgpu.desynchronise):
        for got, expected in zip(unit(a, b, 32_767), unit(a.to("numpy"), b.to("numpy"), 32_767), strict=True):
            assert got == expected
    x = scgpu.encode([0.0, 0.5], 1000, polarity="bipolar", device="cpu")
    assert scgpu.relu(x, 16) == scgpu.relu(x.to("numpy"), 16)
    assert scgpu.stanh(x, 65_536) == scgpu.stanh(x.to("numpy"), 65_536)
