"""Names of the reference system: its vectors on every backend, what differs, refusals."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import reference
from scgpu.devices import backend_of

ROOT = Path(__file__).resolve().parent.parent
ONES = 2**64 - 1


def cases(golden: dict[str, Any], file: str, field: str) -> list[dict[str, Any]]:
    """The cases of a file that have a field."""
    found = [case for name, case in golden[file].items() if field in case]
    assert len(found) > 3
    return found


def random_words(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)


def test_sc_forward_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in cases(golden, "sc_forward", "weights"):
        length, seed = int(case["length"]), int(case["seed"])
        for device in (chosen, "numpy"):
            handle = scgpu.get_backend(device)
            out = handle.sc_forward(case["weights"], case["probs"], length=length, seed=seed)
            assert out.dtype == np.float64 and np.array_equal(out, case["out"])
            assert np.array_equal(
                scgpu.sc_forward(case["weights"], case["probs"], length=length, seed=seed, backend=handle), case["out"]
            )
        # weights that lie on the device already, with ones past the length
        resident = reference.to_device(case["weights"], device=chosen)
        assert np.array_equal(
            scgpu.sc_forward(resident, case["probs"], length=length, backend=chosen, seed=seed), case["out"]
        )
        assert np.array_equal(reference.sc_forward_numpy(case["weights"], case["probs"], length, seed), case["out"])


def test_sc_forward_default_seed_and_shapes(chosen: scgpu.Device) -> None:
    weights = random_words(3, 6, 2)
    p = np.linspace(0, 1, 6)
    expected = scgpu.sc_forward(weights, p, length=100, seed=0xACE1, backend="numpy")
    assert np.array_equal(scgpu.sc_forward(weights, p.reshape(2, 3), length=100, backend=chosen), expected)
    assert np.array_equal(
        scgpu.sc_forward(np.asfortranarray(weights), p.tolist(), length=100, backend=chosen), expected
    )
    assert np.array_equal(scgpu.sc_forward(weights.astype(">u8"), p, length=100), expected)
    assert scgpu.sc_forward(weights[:0], p, length=100, backend=chosen).shape == (0,)


def test_sc_forward_in_parts_that_fit_the_adapter(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    # the states of the register take 262,140 bytes of a buffer, the weights 470,400, a row of them 67,200
    weights, p = random_words(7, 30, 280), np.random.default_rng(3).random(30)
    expected = scgpu.sc_forward(weights, p, length=64 * 280, backend="numpy")
    for largest in (262_140, 340_000, 480_000):
        monkeypatch.setattr(backend_of(gpu), "largest_buffer", largest)
        assert np.array_equal(scgpu.sc_forward(weights, p, length=64 * 280, backend=gpu), expected)
    monkeypatch.setattr(backend_of(gpu), "largest_buffer", 67_192)
    with pytest.raises(scgpu.TooLargeError, match=r"fit|bytes are needed in one buffer"):
        scgpu.sc_forward(weights, p, length=64 * 280, backend=gpu)


def test_sc_forward_of_long_rows(chosen: scgpu.Device) -> None:
    # more words in a row than a pass of the kernel counts
    weights = random_words(2, 3, 200_000, seed=3)
    p = [0.25, 0.5, 1.0]
    streams = scgpu.lfsr16.lfsr_streams(p, 64 * 200_000, 5, device="numpy").words
    expected = np.bitwise_count(weights & streams).sum(axis=(1, 2)) / (64 * 200_000)
    assert np.array_equal(scgpu.sc_forward(weights, p, length=64 * 200_000, seed=5, backend=chosen), expected)


def test_backends_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    available = scgpu.available_backends()
    assert list(available) == list(reference.PRIORITY) == ["gpu", "cpu", "numpy"]
    kinds = [device.kind for device in scgpu.devices()]
    assert available == {name: name in kinds for name in available} and available["numpy"]
    for name in available:
        if available[name]:
            assert scgpu.get_backend(name).name == name
    assert scgpu.get_backend().device == scgpu.device("auto")
    assert scgpu.get_backend("cpu:x86_64_v2" if "x86_64_v2" in scgpu.simd_tiers() else "cpu").name == "cpu"
    assert scgpu.get_backend(len(kinds) - 1).name == "numpy"
    with pytest.raises(ValueError, match=r"unknown backend 'cuda'; choose 'auto', one of \('gpu', 'cpu', 'numpy'\)"):
        scgpu.get_backend("cuda")
    with pytest.raises(TypeError, match="device must be a name"):
        scgpu.get_backend(1.5)  # type: ignore[arg-type]
    without = [device for device in scgpu.devices() if device.kind != "gpu"]
    monkeypatch.setattr(reference, "devices", lambda: without)
    assert not scgpu.available_backends()["gpu"]
    with pytest.raises(RuntimeError, match=r"backend 'gpu' is not available, only \['cpu', 'numpy'\] are"):
        scgpu.get_backend("gpu")


def test_the_adapter_variable_is_not_called_an_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_GPU_ADAPTER", "no such adapter")
    with pytest.raises(scgpu.DeviceError, match=r"^SC_GPU_ADAPTER='no such adapter' matches no GPU adapter"):
        scgpu.get_backend()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"length": 0}, ValueError, "length must be from 1"),
        ({"length": 129}, ValueError, r"weights_packed must have shape \(n_neurons, n_inputs, 3\) for length=129"),
        ({"weights_packed": random_words(2, 2)}, ValueError, r"weights_packed must have shape .*; got \(2, 2\)"),
        ({"weights_packed": random_words(2, 0, 2)}, ValueError, "with at least one input"),
        ({"weights_packed": np.ones((2, 3, 2))}, TypeError, "weights_packed must be an ndarray of uint64"),
        ({"weights_packed": np.ones((2, 3, 2), np.int64)}, TypeError, "weights_packed must be an ndarray of uint64"),
        ({"input_probs": [0.5]}, ValueError, r"input_probs must have one number for each of the 3 inputs.*\(1,\)"),
        ({"input_probs": [0.5, 0.5, 1.5]}, ValueError, r"input_probs must lie in \[0, 1\]; got 1.5 at index \(2,\)"),
        ({"input_probs": [0.5, np.nan, 1]}, ValueError, r"input_probs must lie in \[0, 1\]; got nan at index \(1,\)"),
        ({"input_probs": ["a", "b", "c"]}, TypeError, "input_probs must hold real numbers"),
        ({"seed": -1}, ValueError, "seed must be from 0 to 4294967295; got -1"),
        ({"seed": 2**32}, ValueError, "seed must be from 0"),
        ({"backend": "rust"}, ValueError, "unknown backend 'rust'"),
    ],
)
def test_sc_forward_rejects(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"weights_packed": random_words(2, 3, 2), "input_probs": [0.5] * 3, "length": 100, "backend": "numpy"}
    with pytest.raises(error, match=message):
        scgpu.sc_forward(**(arguments | changes))  # type: ignore[arg-type]


def test_counts_past_32_bits_are_refused() -> None:
    # a stride of 0: half a gigabyte that takes no memory
    weights = np.broadcast_to(np.uint64(ONES), (1, 1 << 16, 1 << 10))
    with pytest.raises(scgpu.TooLargeError, match=r"65536 inputs of 65536 bits: a count could pass 2\*\*32 - 1"):
        reference.gpu_vec_mac(weights, weights[0])
    with pytest.raises(scgpu.TooLargeError, match="65536 inputs of 65536 bits: a count could pass"):
        scgpu.sc_forward(weights, np.zeros(1 << 16), length=1 << 16)


def test_pack_bitstream_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for pack in (reference.pack_bitstream, reference.gpu_pack_bitstream):
        for name, case in golden["pack"].items():
            if "packed_nonzero" in case:
                assert np.array_equal(pack(case["bytes"], device=chosen), case["packed_nonzero"])
            elif "bits" in case and name != "short":
                assert np.array_equal(pack(case["bits"], device=chosen), case["packed"])


def test_pack_bitstream_takes_what_the_reference_takes(chosen: scgpu.Device) -> None:
    assert reference.pack_bitstream([2, 0, 3, 1], device=chosen).tolist() == [13]
    assert reference.pack_bitstream([[0, 255], [1, 0]], device=chosen).tolist() == [[2], [1]]
    assert reference.pack_bitstream(np.array([True, False, True]), device=chosen).tolist() == [5]
    for nothing in ([], [[], []]):
        packed = reference.pack_bitstream(nothing, device=chosen)
        assert packed.size == 0 and packed.dtype == np.uint64 and packed.shape == np.shape(nothing)
    for bits, error, message in (
        ([1, 256], ValueError, r"bits must lie in \[0, 255\]; got 256 at index \(1,\)"),
        ([[0], [-1]], ValueError, r"got -1 at index \(1, 0\)"),
        ([0.5], TypeError, "bits must hold booleans or integers from 0 to 255; got dtype float64"),
        ([[1], [1, 0]], TypeError, "bits must be an array"),
        (3, ValueError, "bits must have shape"),
        (np.ma.masked_array([1, 0], [0, 1]), TypeError, "masked"),
    ):
        with pytest.raises(error, match=message):
            reference.pack_bitstream(bits)  # type: ignore[arg-type]


def test_unpack_bitstream_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in golden["pack"].values():
        if "bits" in case:
            bits = case["bits"]
            packed = case["packed"]
            for words in (packed, packed.tolist()):
                assert np.array_equal(reference.unpack_bitstream(words, bits.size, device=chosen), bits)
                assert np.array_equal(reference.unpack_bitstream(words, bits.size, bits.shape, device=chosen), bits)


def test_unpack_bitstream_shapes_and_refusals() -> None:
    words = reference.pack_bitstream(np.arange(6) % 2)
    assert reference.unpack_bitstream(words, 6, (2, 3)).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert reference.unpack_bitstream(random_words(2), 0).shape == (0,)
    assert reference.unpack_bitstream(random_words(2, 3), 0).shape == (2, 0)
    assert reference.unpack_bitstream(random_words(0, 3), 0).shape == (0, 0)
    assert reference.unpack_bitstream(np.array([5, 7], np.uint64), 1).tolist() == [1]  # of 128
    two = random_words(2, 1)
    for packed, length, shape, error, message in (
        (words, 65, None, ValueError, "original_length must be 1 times at most 64 bits .*; got 65"),
        (two, 7, None, ValueError, "original_length must be 2 times at most 64 bits .*; got 7"),
        (two, 130, None, ValueError, "got 130"),
        (random_words(0, 3), 1, None, ValueError, "original_length must be 0 times"),
        (two, 6, (1, 6), ValueError, r"original_shape must be \(2, 3\) .*; got \(1, 6\)"),
        (two, 6, (3, 2), ValueError, r"original_shape must be \(2, 3\)"),
        (two, 6, (2, 4), ValueError, r"got \(2, 4\)"),
        (words, 6, (7,), ValueError, r"or another of as many elements; got \(7,\)"),
        (words, -1, None, ValueError, "original_length must be from 0"),
        (words, 6.0, None, TypeError, "original_length must be an integer"),
        (random_words(1, 1, 1), 6, None, ValueError, r"packed must have shape \(W,\) or \(n, W\); got \(1, 1, 1\)"),
        (words.astype(np.int64), 6, None, TypeError, "packed must be an ndarray of uint64; got dtype int64"),
        ([-1], 6, None, ValueError, r"packed\[0\] must be from 0 to"),
        ([[1.5]], 6, None, TypeError, r"packed\[0, 0\] must be an integer"),
        ([[1], [1, 2]], 6, None, TypeError, r"packed\[0\] must be an integer"),
        (7, 6, None, TypeError, "packed must be an array of uint64, or lists of integers; got int"),
    ):
        with pytest.raises(error, match=message):
            reference.unpack_bitstream(packed, length, shape)  # type: ignore[arg-type]


def test_popcounts_match_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in cases(golden, "vecops", "a"):
        total = case["popcount_total_a"]
        for count in (reference.popcount, reference.vec_popcount):
            made = count(case["a"], device=chosen)
            assert made == total and type(made) is int
        assert reference.popcount(case["a"].tolist(), device=chosen) == total
        each = reference.gpu_popcount(case["a"], device=chosen)
        assert each.dtype == np.uint64 and np.array_equal(each, case["popcount_each_a"])
        resident = reference.to_device(case["a"], device=chosen)
        assert np.array_equal(reference.gpu_popcount(resident), case["popcount_each_a"])
    for case in cases(golden, "pack", "popcount"):
        assert reference.popcount(case["packed"], device=chosen) == case["popcount"]


def test_popcounts_of_nothing_and_in_parts(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reference.popcount([]) == 0
    assert reference.gpu_popcount(np.zeros((0, 3), np.uint64)).shape == (0, 3)
    assert reference.gpu_popcount(np.zeros((2, 0), np.uint64)).shape == (2, 0)
    words = random_words(5, 3)
    monkeypatch.setattr(backend_of(gpu), "largest_buffer", 60)
    assert np.array_equal(reference.gpu_popcount(words, device=gpu), np.bitwise_count(words))
    empty = scgpu.Bitstream.from_words(np.zeros((0, 3), np.uint64), 192, device=gpu)
    assert reference.gpu_popcount(empty).shape == (0, 3)
    with pytest.raises(TypeError, match="words must be an ndarray of uint64; got list"):
        reference.gpu_popcount([1])  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"packed\[1\] must be from 0 to 18446744073709551615; got 18446744073709551616"
    ):
        reference.popcount([1, 2**64])


def test_vec_operations_match_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in cases(golden, "vecops", "a"):
        a, b, select = case["a"], case["b"], case["sel"]
        made = {
            "and": reference.vec_and(a, b, device=chosen),
            "xnor": reference.vec_xnor(a, b, device=chosen),
            "not_a": reference.vec_not(a, device=chosen),
            "mux": reference.vec_mux(select, a, b, device=chosen),
        }
        for name, words in made.items():
            assert words.dtype == np.uint64 and words.flags.writeable and np.array_equal(words, case[name]), name
        assert np.array_equal(reference.gpu_vec_and(a, b, device=chosen), case["and"])
        both = reference.gpu_vec_and(reference.to_device(a, device=chosen), reference.to_device(b, device=chosen))
        assert both.device == chosen and np.array_equal(reference.to_host(both), case["and"])


@given(length=st.integers(1, 200), seed=st.integers(0, 99))
def test_vec_operations_keep_the_tail(length: int, seed: int) -> None:
    p = np.random.default_rng(seed).random((3, 2))
    a, b, select = (scgpu.encode(p, length, seed, tensor_id=k, device="numpy") for k in range(3))
    bipolar = ~(a ^ b)
    assert np.array_equal(reference.vec_xnor(a.words, b.words, length=length), bipolar.words)
    assert np.array_equal(reference.vec_not(a.words, length=length), (~a).words)
    bits = np.where(select.bits(), a.bits(), b.bits())
    assert np.array_equal(reference.vec_mux(select.words, a.words, b.words), scgpu.pack(bits))


def test_vec_operations_broadcast_but_for_words_and_change_nothing(chosen: scgpu.Device) -> None:
    a, b = random_words(4, 3, 2), random_words(3, 2, seed=1)
    before = a.copy()
    for one, other in ((a, b), (b, a), (a[:, ::-1], b), (np.asfortranarray(a), b)):
        assert np.array_equal(reference.vec_and(one, other, device=chosen), one & other)
        assert np.array_equal(reference.vec_xnor(one, other, device=chosen), ~(one ^ other))
    assert np.array_equal(a, before)
    for shape in ((0, 2), (3, 0)):
        assert reference.vec_and(np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)).shape == shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: reference.vec_and(random_words(2, 3), random_words(2, 1)), ValueError, r"a \(2, 3\), b \(2, 1\)"),
        (
            lambda: reference.vec_mux(*[random_words(n, 1) for n in (2, 3, 1)]),
            ValueError,
            r"select \(2, 1\), a \(3, 1\)",
        ),
        (lambda: reference.vec_and(random_words(2), [1, 2]), TypeError, "b must be an ndarray of uint64; got list"),
        (lambda: reference.vec_not(random_words(2).view(np.int64)), TypeError, "a must be an ndarray of uint64"),
        (lambda: reference.vec_not(random_words(2), length=64), ValueError, r"a must have shape \(..., 1\)"),
        (lambda: reference.vec_not(random_words(2) | 1 << 63, length=127), ValueError, "a has ones past length=127"),
        (lambda: reference.vec_xnor(random_words(1) * 0, random_words(1) | 8, length=3), ValueError, "b has ones past"),
        (lambda: reference.vec_not(random_words(1), length=0), ValueError, "length must be from 1"),
        (lambda: reference.gpu_vec_and(random_words(1), reference.to_device(random_words(1))), TypeError, "b must be"),
        (lambda: reference.to_device([1]), TypeError, "words must be an ndarray of uint64; got list"),
        (lambda: reference.to_device(np.zeros(8, np.uint8)), TypeError, "words must be uint64; got uint8"),
        (lambda: reference.to_device(np.full(1, ONES), 63), ValueError, "words has ones past length=63"),
        (lambda: reference.to_device(reference.to_device(random_words(1)), 63), ValueError, "its own, 64; got 63"),
        (lambda: reference.to_host([1]), TypeError, "words must be a Bitstream or an ndarray; got list"),
    ],
)
def test_words_rejected(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_to_device_and_back(chosen: scgpu.Device) -> None:
    words = random_words(2, 3)
    streams = reference.to_device(words, device=chosen)
    assert (streams.length, streams.shape, streams.device) == (192, (2,), chosen)
    assert np.array_equal(reference.to_host(streams), words)
    words[:] = 0  # copied
    assert reference.to_host(streams).any()
    assert reference.to_device(streams, device=chosen) is streams
    assert reference.to_device(streams, device="numpy").device.kind == "numpy"
    assert reference.to_device(np.array([5], np.uint64), 3, device=chosen).length == 3
    assert reference.to_host(words) is words


def test_vec_mac_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    for case in [case for name, case in golden["dense"].items() if name.startswith("mac")]:
        weights, inputs, counts = case["weights"], case["inputs"], case["counts"]
        made = reference.gpu_vec_mac(weights, inputs, device=chosen)
        assert made.dtype == np.uint64 and np.array_equal(made, counts)
        resident = reference.to_device(weights, device=chosen), reference.to_device(inputs, device="numpy")
        assert np.array_equal(reference.gpu_vec_mac(*resident), counts)
        assert np.array_equal(reference.gpu_vec_mac(weights, resident[1], device=chosen), counts)
        for dtype in (np.uint64, np.int64, np.float64, np.float32, np.int32):
            outputs = np.zeros(counts.shape, dtype)
            reference.jit_vec_mac(weights, inputs, outputs, device=chosen)
            assert np.array_equal(outputs, counts)


def test_vec_mac_of_nothing(chosen: scgpu.Device) -> None:
    for shape in ((0, 3, 2), (4, 0, 2), (4, 3, 0)):
        made = reference.gpu_vec_mac(np.zeros(shape, np.uint64), np.zeros(shape[1:], np.uint64), device=chosen)
        assert made.tolist() == [0] * shape[0]


@pytest.mark.parametrize("inputs", [(1, 2), (3, 1), (3,), (3, 2, 1)])
def test_vec_mac_rejects_what_would_be_broadcast(inputs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weights must have shape .* got \(4, 3, 2\) and"):
        reference.gpu_vec_mac(random_words(4, 3, 2), random_words(*inputs))


def test_jit_functions_write_where_they_are_told(chosen: scgpu.Device) -> None:
    bits = np.random.default_rng(0).integers(0, 3, 130, dtype=np.uint8)
    out = np.full(3, 9, np.uint64)
    reference.jit_pack_bits(bits, out, device=chosen)
    assert np.array_equal(out, scgpu.pack(bits != 0))
    rows = np.zeros((4, 6), np.uint64)
    reference.jit_pack_bits(np.tile(bits, (4, 1)), rows[:, ::2], device=chosen)
    assert np.array_equal(rows, np.stack([out, np.zeros(3, np.uint64)], axis=-1).reshape(1, 6).repeat(4, axis=0))


def test_jit_functions_reject() -> None:
    weights, inputs = np.full((2, 3, 2), ONES, np.uint64), np.full((3, 2), ONES, np.uint64)
    frozen = np.zeros(2)
    frozen.flags.writeable = False
    for outputs, error, message in (
        (np.zeros(1), ValueError, r"outputs must be writeable and have shape \(2,\); got \(1,\)"),
        (frozen, ValueError, r"got \(2,\) that is read-only"),
        (np.zeros(2, np.uint8), ValueError, "outputs of dtype uint8 cannot hold 384; use uint64"),
        (np.zeros(2, np.int8), ValueError, "outputs of dtype int8 cannot hold 384"),
        (
            np.zeros(2, np.bool_),
            TypeError,
            "outputs must be an array of integers or floating-point numbers; got dtype b",
        ),
        ([0, 0], TypeError, "outputs must be an array of integers or floating-point numbers; got list"),
    ):
        with pytest.raises(error, match=message):
            reference.jit_vec_mac(weights, inputs, outputs)  # type: ignore[arg-type]
        assert not np.any(outputs)
    # the reference drops the last two of these bits without a word
    with pytest.raises(ValueError, match=r"packed_arr must be writeable and have shape \(2,\); got \(1,\)"):
        reference.jit_pack_bits(np.ones(66, np.uint8), np.zeros(1, np.uint64))
    with pytest.raises(TypeError, match="packed_arr must be an ndarray of uint64; got dtype float64"):
        reference.jit_pack_bits(np.ones(64, np.uint8), np.zeros(1))  # type: ignore[arg-type]


def test_migration_names_what_there_is() -> None:
    text = (ROOT / "docs" / "migration.md").read_text()
    named = set(re.findall(r"\bscgpu\.[A-Za-z_][\w.]*\w", text))
    assert len(named) > 20
    for name in named:
        found: Any = scgpu
        for part in name.split(".")[1:]:
            assert hasattr(found, part), name
            found = getattr(found, part)
    public = {
        name
        for name, value in vars(reference).items()
        if inspect.isfunction(value) and value.__module__ == reference.__name__ and not name.startswith("_")
    }
    assert len(public) > 15
    for name in public:
        assert re.search(rf"\b{name}\b", text), f"docs/migration.md lacks {name}"
