"""lif: vectors of the reference, parity, records, pieces, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu._abi import OPS, PASS_STEPS
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of
from scgpu.parity import make_case, wrong_words

NAMES = ("data_width", "fraction", "v_rest", "v_reset", "v_threshold", "refractory_period")


def parameters(case: dict[str, Any]) -> dict[str, int]:
    """The six parameters of a vector's case."""
    return dict(zip(NAMES, case["params"].tolist(), strict=True))


def cases(golden: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The cases of one kind."""
    found = [case for name, case in sorted(golden["lif"].items()) if name.startswith(kind)]
    assert len(found) >= 3
    return found


def test_lif_matches_golden_constant(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in cases(golden, "const"):
        n_steps = case["v"].size
        given = case["leak_gain_i_noise"].tolist()
        spikes, v = scgpu.batch_lif_run(n_steps, *given, **parameters(case), device=chosen)
        assert spikes.dtype == np.int32 and v.dtype == np.int16
        assert np.array_equal(spikes, case["spikes"]) and np.array_equal(v, case["v"])


def test_lif_matches_golden_multi(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in cases(golden, "multi"):
        leak_k, gain_k = case["leak_gain"].tolist()
        n_neurons, n_steps = case["v"].shape
        spikes, v = scgpu.batch_lif_run_multi(
            n_neurons, n_steps, leak_k, gain_k, case["currents"], **parameters(case), device=chosen
        )
        assert np.array_equal(spikes, case["spikes"]) and np.array_equal(v, case["v"])


def test_lif_matches_golden_varying(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in cases(golden, "vary"):
        leak_k, gain_k = case["leak_gain"].tolist()
        noises = case["noises"] if case["noises"].size else None
        spikes, v = scgpu.batch_lif_run_varying(
            leak_k, gain_k, case["currents"], noises, **parameters(case), device=chosen
        )
        assert np.array_equal(spikes, case["spikes"]) and np.array_equal(v, case["v"])


def test_lif_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("lif", chosen, oracle, number=80)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_neurons=st.integers(1, 5) | st.integers(30, 140),
    n_steps=st.integers(2100, 3500),
    usual=st.booleans(),
    data_width=st.integers(1, 16),
    fraction=st.integers(0, 31),
    period=st.integers(-3, 12) | st.sampled_from((100, 1022, 1023, 1100)),
)
def test_lif_with_constant_inputs_equals_the_oracle(
    seed: int, n_neurons: int, n_steps: int, usual: bool, data_width: int, fraction: int, period: int
) -> None:
    # long enough for the search for cycles, whatever its outcome
    rng = np.random.default_rng(seed)

    def some(low: int, high: int) -> Any:
        if usual:
            return rng.integers(low, high, n_neurons)
        return rng.integers(-(2**15), 2**15, n_neurons) >> rng.integers(0, 16, n_neurons)

    numbers: dict[str, Any] = {
        "leak_k": some(1, 60),
        "gain_k": some(200, 300),
        "currents": some(0, 300),
        "v_rest": some(-5, 5),
        "v_reset": some(-30, 10),
        "v_threshold": some(200, 300),
        "data_width": 16 if usual else data_width,
        "fraction": 8 if usual else fraction,
        "refractory_period": period,
    }
    expected_streams, expected_v = scgpu.batch_lif_run_multi(
        n_neurons, n_steps, **numbers, record="both", device="numpy"
    )
    for tier in scgpu.simd_tiers():
        streams, v = scgpu.batch_lif_run_multi(n_neurons, n_steps, **numbers, record="both", device=f"cpu:{tier}")
        assert streams.to("numpy") == expected_streams and np.array_equal(v, expected_v)
        spikes, v = scgpu.batch_lif_run_multi(n_neurons, n_steps, **numbers, device=f"cpu:{tier}")
        assert np.array_equal(spikes, expected_streams.bits()) and np.array_equal(v, expected_v)


@pytest.mark.parametrize("n_neurons", [1, 2, 3, 70])
@pytest.mark.parametrize("n_steps", [64, 2049, 3500])
def test_lif_leaves_the_same_state_and_counts(
    n_neurons: int, n_steps: int, chosen: scgpu.Device, oracle: Backend
) -> None:
    # constant inputs of which the neurons make every kind of train: none, some, one in every step
    rng = np.random.default_rng(n_neurons)
    for period in (-2, 0, 3):
        table = np.repeat(np.array([[20], [256], [0], [-7], [256], [period]], np.int16), n_neurons, axis=1)
        params = dict.fromkeys(OPS["lif"].params, 0) | {
            "neuron_count": n_neurons,
            "step_count": n_steps,
            "data_width": 16,
            "fraction": 8,
            "parameter_stride": n_neurons,
            "current_neuron_stride": 1,
        }
        inputs = {
            "parameters": table,
            "state": rng.integers(-3, 9, 2 * n_neurons),
            "currents": rng.integers(0, 400, n_neurons),
            "noises": np.zeros(1),
            "words": np.zeros(0),
            "counts": np.full(n_neurons, 2**32 - 3),
        }
        case = make_case("lif", params, inputs)
        assert wrong_words(case, case.run(backend_of(chosen)), oracle) == 0


def test_lif_run_of_1000_steps_equals_ten_of_100(chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(4)
    backend = backend_of(chosen)
    n_neurons = 70
    table = np.array([20, 256, 3, -40, 256, 5], np.int16)
    currents = rng.integers(0, 200, (1000, n_neurons)).astype(np.int16)
    noises = rng.integers(-20, 20, (n_neurons, 1000)).astype(np.int16)

    def trains(parts: int) -> tuple[Any, Any]:
        state = backend.upload(np.tile(np.array([3, 0], np.int16), n_neurons))
        counts = backend.upload(np.zeros(n_neurons, np.uint32))
        bits = []
        for steps in np.split(np.arange(1000), parts):
            word_count = -(-steps.size // 64)
            words = backend.empty("u64", n_neurons * word_count)
            params = {
                "neuron_count": n_neurons,
                "step_begin": int(steps[0]),
                "step_count": steps.size,
                "data_width": 16,
                "fraction": 8,
                "parameter_stride": 1,
                "current_neuron_stride": 1,
                "current_step_stride": n_neurons,
                "noise_neuron_stride": 1000,
                "noise_step_stride": 1,
                "record_words": 1,
                "word_begin": 0,
                "first_bit": 0,
                "row_words": word_count,
                "record_begin": int(steps[0]),
                "record_spikes": 0,
                "spike_stride": 0,
                "record_voltages": 0,
                "voltage_stride": 0,
            }
            nothing = backend.empty("u32", 0), backend.empty("i16", 0)
            inputs = (backend.upload(table), state, backend.upload(currents), backend.upload(noises))
            (made,) = backend.execute([Step("lif", params, (*inputs, words, *nothing, counts))], [words])
            octets = made.reshape(n_neurons, word_count).copy().view(np.uint8)
            bits.append(np.unpackbits(octets, axis=1, bitorder="little", count=steps.size))
        return np.concatenate(bits, axis=1), backend.execute([], [state, counts])

    whole, (state, counts) = trains(1)
    parts, (parts_state, parts_counts) = trains(10)
    assert np.array_equal(whole, parts) and whole.sum() > 1000
    assert np.array_equal(state, parts_state) and np.array_equal(counts, parts_counts)
    assert np.array_equal(counts, whole.sum(axis=1))


def test_lif_past_the_steps_of_one_invocation(chosen: scgpu.Device) -> None:
    # software adapters end an invocation after 65,535 loop trips, silently
    n_steps = 4 * PASS_STEPS + 5000
    currents = np.random.default_rng(0).integers(0, 256, (2, n_steps)).astype(np.int16)
    spikes, v = scgpu.batch_lif_run_varying(20, 256, currents, device="cpu")
    assert np.array_equal(scgpu.batch_lif_run_varying(20, 256, currents, device=chosen)[1], v)
    streams = scgpu.batch_lif_run_varying(20, 256, currents, record="spikes", device=chosen)
    assert np.array_equal(streams.bits(), spikes) and streams.device == chosen


def test_lif_past_65535_workgroups(chosen: scgpu.Device) -> None:
    n_neurons = 65_535 * 64 + 65
    currents = np.resize(np.arange(300, dtype=np.int16), n_neurons)
    counts = scgpu.batch_lif_run_multi(n_neurons, 30, 20, 256, currents, record="counts", device=chosen)
    expected = scgpu.batch_lif_run_multi(300, 30, 20, 256, currents[:300], record="counts", device="numpy")
    assert np.array_equal(counts, np.resize(expected, n_neurons)) and expected[-1] == 10


@pytest.mark.parametrize("largest", [64 * 4 * 7, 64 * 4 * 300])
def test_lif_in_pieces_that_fit_buffers(largest: int, chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    currents = rng.integers(0, 256, (23, 1001)).astype(np.int16)
    noises = rng.integers(-9, 9, (23, 1001)).astype(np.int16)
    numbers = {"leak_k": rng.integers(10, 40, 23), "gain_k": 256, "currents": currents, "noises": noises}
    spikes, v = scgpu.batch_lif_run_varying(**numbers, device="numpy")
    backend = backend_of(chosen)
    monkeypatch.setattr(backend, "largest_buffer", largest)
    got_spikes, got_v = scgpu.batch_lif_run_varying(**numbers, device=chosen)
    assert np.array_equal(got_spikes, spikes) and np.array_equal(got_v, v)
    multi = {**numbers, "currents": currents[:, 0]}
    del multi["noises"]
    monkeypatch.setattr(backend, "largest_buffer", 23 * 8 * 16)
    streams, got_v = scgpu.batch_lif_run_multi(23, 1001, **multi, record="both", device=chosen)
    expected, v = scgpu.batch_lif_run_multi(23, 1001, **multi, record="both", device="numpy")
    assert np.array_equal(got_v, v) and streams == expected


def test_lif_records_agree(chosen: scgpu.Device) -> None:
    currents = np.arange(0, 300, 3)
    given = (100, 333, 20, 256, currents)
    spikes, v = scgpu.batch_lif_run_multi(*given, device=chosen)
    streams = scgpu.batch_lif_run_multi(*given, record="spikes", device=chosen)
    assert streams.shape == (100,) and streams.length == 333 and streams.polarity == "unipolar"
    assert np.array_equal(streams.bits(), spikes) and spikes.shape == v.shape == (100, 333)
    assert np.array_equal(scgpu.batch_lif_run_multi(*given, record="voltages", device=chosen), v)
    both = scgpu.batch_lif_run_multi(*given, record="both", device=chosen)
    assert both[0] == streams and np.array_equal(both[1], v) and both[1].dtype == np.int16
    counts = scgpu.batch_lif_run_multi(*given, record="counts", device=chosen)
    assert np.array_equal(counts, spikes.sum(axis=1)) and counts.dtype == np.uint64
    assert np.array_equal(counts, streams.count())


def test_lif_records_of_one_neuron(chosen: scgpu.Device) -> None:
    spikes, v = scgpu.batch_lif_run(100, 20, 256, 128, device=chosen)
    assert spikes.shape == v.shape == (100,)
    stream = scgpu.batch_lif_run(100, 20, 256, 128, record="spikes", device=chosen)
    assert stream.shape == () and np.array_equal(stream.bits(), spikes)
    assert scgpu.batch_lif_run(100, 20, 256, 128, record="counts", device=chosen) == 20
    varying = scgpu.batch_lif_run_varying(20, 256, np.full(100, 128), record="both", device=chosen)
    assert varying[0] == stream and np.array_equal(varying[1], v)


def test_lif_parameters_of_each_neuron(chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(2)
    numbers = {
        "leak_k": rng.integers(-300, 300, 40),
        "gain_k": rng.integers(100, 400, 40),
        "currents": rng.integers(-100, 300, 40),
        "v_rest": rng.integers(-100, 100, 40),
        "v_reset": rng.integers(-100, 100, 40),
        "v_threshold": rng.integers(50, 400, 40),
        "refractory_period": rng.integers(-1, 5, 40),
    }
    streams, v = scgpu.batch_lif_run_multi(40, 200, **numbers, record="both", device=chosen)
    for i in range(40):
        alone = {name: int(values[i]) for name, values in numbers.items()}
        spikes, expected = scgpu.batch_lif_run(200, i_t=alone.pop("currents"), **alone, device="numpy")
        assert np.array_equal(v[i], expected) and np.array_equal(streams.bits()[i], spikes)


def test_lif_spikes_feed_a_dense_layer(chosen: scgpu.Device) -> None:
    spikes = scgpu.batch_lif_run_multi(16, 1024, 20, 256, np.arange(16) * 20, record="spikes", device=chosen)
    layer = scgpu.DenseLayer(16, 5, 1024, device=chosen)
    assert np.array_equal(
        layer.counts_prepacked(spikes),
        scgpu.DenseLayer(16, 5, 1024, device="numpy").counts_prepacked(spikes.to("numpy")),
    )


@pytest.mark.parametrize("offset", [0, 1, 5, 16])
@pytest.mark.parametrize("varying", [False, True])
def test_lif_writes_into_out(offset: int, varying: bool, chosen: scgpu.Device) -> None:
    # large enough on a CPU for stores past the caches, at any offset from a cache line
    n_neurons, n_steps = (37, 33_333) if chosen.kind == "cpu" else (5, 333)
    size = n_neurons * n_steps
    spikes_room, v_room = np.full(size + 64, 77, np.int32), np.full(size + 64, 77, np.int16)
    spikes = spikes_room[offset : offset + size].reshape(n_neurons, n_steps)
    v = v_room[offset : offset + size].reshape(n_neurons, n_steps)
    currents = np.resize(np.arange(211), (n_neurons, n_steps) if varying else n_neurons)
    run: Any = scgpu.batch_lif_run_varying
    given: tuple[Any, ...] = (20, 256, currents)
    if not varying:
        run, given = scgpu.batch_lif_run_multi, (n_neurons, n_steps, *given)
    made = run(*given, out=(spikes, v), device=chosen)
    assert made[0] is spikes and made[1] is v
    other = "cpu" if chosen.kind == "gpu" else scgpu.simd_tiers()[0]
    streams, expected = run(*given, record="both", device="cpu" if other == "cpu" else f"cpu:{other}")
    assert np.array_equal(spikes, streams.bits()) and np.array_equal(v, expected)
    for room in (spikes_room, v_room):
        assert (room[:offset] == 77).all() and (room[offset + size :] == 77).all()


def test_lif_writes_into_any_layout(chosen: scgpu.Device) -> None:
    expected = scgpu.batch_lif_run_multi(6, 77, 20, 256, np.arange(6) * 50, device="numpy")
    spikes, v = np.zeros((77, 6), np.int32).T, np.zeros((6, 154), np.int16)[:, ::2]
    scgpu.batch_lif_run_multi(6, 77, 20, 256, np.arange(6) * 50, out=(spikes, v), device=chosen)
    assert np.array_equal(spikes, expected[0]) and np.array_equal(v, expected[1])
    unaligned = np.zeros(2 * 6 * 77 + 1, np.uint8)[1:].view(np.int16).reshape(6, 77)
    made = scgpu.batch_lif_run_multi(6, 77, 20, 256, np.arange(6) * 50, record="voltages", out=unaligned, device=chosen)
    assert made is unaligned and np.array_equal(made, expected[1])
    one = np.zeros(154, np.int16)[::2]
    scgpu.batch_lif_run(77, 20, 256, 250, record="voltages", out=one, device=chosen)
    assert np.array_equal(one, expected[1][5])


def test_lif_accepts_any_integers(chosen: scgpu.Device) -> None:
    currents = np.arange(12).reshape(3, 4) * 20
    expected = scgpu.batch_lif_run_varying(20, 256, currents.astype(np.int16), device="numpy")
    for array in (currents.tolist(), currents.astype(">i4"), np.asfortranarray(currents), currents.astype(np.uint8)):
        made = scgpu.batch_lif_run_varying(np.int64(20), 256, array, device=chosen)
        assert np.array_equal(made[0], expected[0]) and np.array_equal(made[1], expected[1])


def test_lif_of_nothing(chosen: scgpu.Device) -> None:
    none = np.zeros(0, np.int16)
    assert [a.shape for a in scgpu.batch_lif_run(0, 20, 256, 128, device=chosen)] == [(0,), (0,)]
    assert [a.shape for a in scgpu.batch_lif_run_multi(0, 5, 20, 256, none, device=chosen)] == [(0, 5), (0, 5)]
    assert [a.shape for a in scgpu.batch_lif_run_multi(2, 0, 20, 256, [1, 2], device=chosen)] == [(2, 0), (2, 0)]
    assert [a.dtype for a in scgpu.batch_lif_run_varying(20, 256, none, device=chosen)] == [np.int32, np.int16]
    assert scgpu.batch_lif_run_multi(0, 5, 20, 256, none, record="spikes", device=chosen).words.shape == (0, 1)
    assert scgpu.batch_lif_run_multi(2, 0, 20, 256, [1, 2], record="counts", device=chosen).tolist() == [0, 0]
    assert scgpu.batch_lif_run_multi(0, 5, none, 256, none, record="counts", device=chosen).shape == (0,)


RANGE = "must be from -32768 to 32767; got"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data_width": 0}, ValueError, "data_width must be from 1 to 16; got 0"),
        ({"data_width": 17}, ValueError, "data_width must be from 1 to 16; got 17"),
        ({"fraction": -1}, ValueError, "fraction must be from 0 to 31; got -1"),
        ({"fraction": 32}, ValueError, "fraction must be from 0 to 31; got 32"),
        ({"fraction": 8.0}, TypeError, "fraction must be an integer.*float"),
        ({"n_steps": -1}, ValueError, "n_steps must be from 0 to 4294967295; got -1"),
        ({"n_steps": 2**32}, ValueError, "n_steps must be from 0"),
        ({"n_neurons": -1}, ValueError, "n_neurons must be from 0 to 4294967295; got -1"),
        ({"n_neurons": 3}, ValueError, r"currents must have shape \(n_neurons,\) = \(3,\); got \(2,\)"),
        ({"currents": 5}, ValueError, r"currents must have shape .* got \(\)"),
        ({"currents": [1.0, 2.0]}, TypeError, "currents must hold integers; got dtype float64"),
        ({"currents": [True, False]}, TypeError, "currents must hold integers; got dtype bool"),
        ({"currents": [1, 2**15]}, ValueError, rf"currents {RANGE} 32768 at index \(1,\)"),
        ({"currents": [-(2**15) - 1, 1]}, ValueError, rf"currents {RANGE} -32769 at index \(0,\)"),
        ({"currents": np.ma.masked_array([1, 2], [0, 1])}, TypeError, "masked"),
        ({"currents": [[1], [2, 3]]}, TypeError, "currents must be an array of numbers"),
        ({"leak_k": 2**15}, ValueError, f"leak_k {RANGE} 32768"),
        ({"leak_k": [1, 2, 3]}, ValueError, r"leak_k must be a number or have shape \(2,\).*got shape \(3,\)"),
        ({"gain_k": [[1, 2]]}, ValueError, r"gain_k must be a number or have shape \(2,\)"),
        ({"gain_k": [1, 2.5]}, TypeError, "gain_k must hold integers; got dtype float64"),
        ({"v_rest": -40_000}, ValueError, f"v_rest {RANGE} -40000"),
        ({"v_reset": None}, TypeError, "v_reset must hold integers; got dtype object"),
        ({"v_threshold": "1"}, TypeError, "v_threshold must hold integers"),
        ({"refractory_period": 40_000}, ValueError, f"refractory_period {RANGE} 40000"),
        ({"record": "spike"}, ValueError, "record must be one of 'spikes', 'voltages', 'both', 'counts'; got 'spike'"),
        ({"record": "spikes", "n_steps": 0}, ValueError, "n_steps .*bitstreams.* must be from 1"),
        ({"record": "spikes", "out": np.zeros((2, 9))}, ValueError, "record='spikes' takes no out="),
        (
            {"out": np.zeros((2, 9), np.int16)},
            ValueError,
            "out must be a pair of arrays, spikes and voltages; got ndarray",
        ),
        (
            {"out": (np.zeros((2, 9), np.int64), np.zeros((2, 9), np.int16))},
            ValueError,
            r"out\[0\] must be an ndarray of int32 of shape \(2, 9\); got int64 of shape \(2, 9\)",
        ),
        (
            {"out": (np.zeros((2, 9), np.int32), None)},
            ValueError,
            r"out\[1\] must be an ndarray of int16.*got NoneType",
        ),
        ({"record": "voltages", "out": np.zeros((9, 2), np.int16)}, ValueError, r"of shape \(2, 9\); got .*\(9, 2\)"),
        ({"record": "voltages", "out": np.broadcast_to(np.int16(0), (2, 9))}, ValueError, "out is read-only"),
        ({"device": "no such"}, scgpu.DeviceError, "matches no GPU adapter"),
    ],
)
def test_lif_rejects(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"n_neurons": 2, "n_steps": 9, "leak_k": 20, "gain_k": 256, "currents": [1, 2]}
    with pytest.raises(error, match=message):
        scgpu.batch_lif_run_multi(**{**given, "device": "cpu", **changes})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            (20, 256, np.zeros((2, 2, 2), np.int16)),
            ValueError,
            r"\(n_steps,\) or \(n_neurons, n_steps\); got \(2, 2, 2\)",
        ),
        ((20, 256, [1, 2], [1]), ValueError, r"noises must have the shape of currents, \(2,\); got \(1,\)"),
        ((20, 256, [1, 2], [0.5, 1]), TypeError, "noises must hold integers; got dtype float64"),
        (([20, 30], 256, [1, 2]), ValueError, r"leak_k must be a number or have shape \(1,\)"),
    ],
)
def test_lif_varying_rejects(given: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.batch_lif_run_varying(*given, device="cpu")
    with pytest.raises(TypeError, match=r"leak_k must be an integer from -32768 to 32767; got 2\.5"):
        scgpu.batch_lif_run(5, 2.5, 256, 128, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"noise_in {RANGE} 32768"):
        scgpu.batch_lif_run(5, 20, 256, 128, 2**15, device="cpu")


def test_lif_rejects_out_that_shares_memory() -> None:
    room = np.zeros((2, 9), np.int16)
    with pytest.raises(ValueError, match="out shares memory with another argument"):
        scgpu.batch_lif_run_varying(20, 256, room, record="voltages", out=room, device="cpu")
    spikes = np.zeros((2, 9), np.int32)
    v = spikes.reshape(-1).view(np.int16)[:18].reshape(2, 9)
    with pytest.raises(ValueError, match="out shares memory"):
        scgpu.batch_lif_run_multi(2, 9, 20, 256, [1, 2], out=(spikes, v), device="cpu")


def test_lif_too_large() -> None:
    for record in (None, "voltages", "spikes"):
        with pytest.raises(scgpu.TooLargeError):
            scgpu.batch_lif_run_multi(2**20, 2**32 - 1, 20, 256, np.zeros(2**20, np.int16), record=record, device="cpu")
