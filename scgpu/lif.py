"""lif: leaky integrate-and-fire neurons in fixed point, many neurons and steps in one call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu._abi import PASS_STEPS
from scgpu.backend import DTYPES, Backend, Device, Step, require_host_memory
from scgpu.bitstream import Bitstream, Part
from scgpu.devices import backend_for
from scgpu.errors import TooLargeError

Record = Literal["spikes", "voltages", "both", "counts"]
RECORDS = ("spikes", "voltages", "both", "counts")

LOW, HIGH = -(2**15), 2**15 - 1
MOST = 2**32 - 1  # neurons, and steps of a call


class Format(NamedTuple):
    """The number format of neurons: how products are shifted and sums are cut."""

    data_width: int
    fraction: int

    @classmethod
    def checked(cls, data_width: Any, fraction: Any) -> Format:
        """The format, or an error that says which part is out of range."""
        return cls(arguments.integer("data_width", data_width, 1, 16), arguments.integer("fraction", fraction, 0, 31))


class Input(NamedTuple):
    """What comes in from outside: an int16 array, and its strides by neuron and by step, 0 where it does not vary."""

    values: NDArray[np.int16]
    neuron_stride: int
    step_stride: int

    @classmethod
    def of(cls, values: NDArray[np.int16]) -> Input:
        """A constant (), or rows of steps (steps,) or (neurons, steps)."""
        if values.ndim == 0:
            return cls(values.reshape(1), 0, 0)
        return cls(values, values.shape[-1] if values.ndim == 2 else 0, 1)

    def part(self, neurons: slice, steps: slice) -> Input:
        """The same for some of the neurons and steps."""
        if self.step_stride:
            part = self.values[neurons, steps] if self.values.ndim == 2 else self.values[steps]
            return Input.of(part)
        return Input(self.values[neurons], 1, 0) if self.neuron_stride else self


@dataclass(frozen=True)
class Neurons:
    """Neurons that do not see each other, with what comes in.

    Attributes
    ----------
    count : int
        Neurons.
    table : ndarray of int16, shape (6, 1) or (6, count)
        leak_k, gain_k, v_rest, v_reset, v_threshold and refractory_period.
    format : Format
        Their number format.
    current, noise : Input
        What comes in.
    """

    count: int
    table: NDArray[np.int16]
    format: Format
    current: Input
    noise: Input

    @classmethod
    def checked(
        cls, count: int, numbers: dict[str, Any], number_format: Format, current: Input, noise: Input
    ) -> Neurons:
        """Neurons of the six parameters in ``numbers``, each a number or an array of one for each neuron."""
        columns = []
        for name, value in numbers.items():
            column = arguments.integers16(name, value)
            if column.ndim and column.shape != (count,):
                raise ValueError(
                    f"{name} must be a number or have shape ({count},), one for each neuron; got shape {column.shape}"
                )
            columns.append(column)
        width = max((column.ndim and count for column in columns), default=0) or 1
        table = np.empty((len(columns), width), "<i2")
        for row, column in zip(table, columns, strict=True):
            row[:] = column if column.size else 0
        return cls(count, table, number_format, current, noise)

    def part(self, neurons: slice, steps: slice) -> Neurons:
        """Some of the neurons, in some of the steps."""
        table = self.table if self.table.shape[1] == 1 else self.table[:, neurons]
        count = len(range(*neurons.indices(self.count)))
        return Neurons(count, table, self.format, self.current.part(neurons, steps), self.noise.part(neurons, steps))

    def rest(self) -> NDArray[np.int16]:
        """The state of (v, refractory counter) that every neuron starts from."""
        state = np.zeros((self.count, 2), "<i2")
        state[:, 0] = self.table[2]
        return state


class Records(NamedTuple):
    """Where a call records: buffers of a backend, and the elements of a neuron's row in each; 0 records nothing."""

    words: Any
    row_words: int
    word_begin: int
    spikes: Any
    spike_stride: int
    voltages: Any
    voltage_stride: int


def lif_step_of(
    neurons: Neurons,
    buffers: tuple[Any, Any, Any, Any, Any],
    records: Records,
    *,
    step_begin: int,
    step_count: int,
    record_begin: int,
    first_bit: int = 0,
) -> Step:
    """The kernel call that advances neurons by ``step_count`` steps.

    ``buffers`` are those of the parameters, (v, refractory counter), currents, noises and counts;
    ``step_begin`` is the first step in the inputs, ``record_begin`` the one in spikes and voltages,
    ``first_bit`` its bit in the first word.
    """
    parameters, state, currents, noises, counts = buffers
    params = {
        "neuron_count": neurons.count,
        "step_begin": step_begin,
        "step_count": step_count,
        "data_width": neurons.format.data_width,
        "fraction": neurons.format.fraction,
        "parameter_stride": neurons.table.shape[1],
        "current_neuron_stride": neurons.current.neuron_stride,
        "current_step_stride": neurons.current.step_stride,
        "noise_neuron_stride": neurons.noise.neuron_stride,
        "noise_step_stride": neurons.noise.step_stride,
        "record_words": int(records.row_words > 0),
        "word_begin": records.word_begin,
        "first_bit": first_bit,
        "row_words": records.row_words,
        "record_begin": record_begin,
        "record_spikes": int(records.spike_stride > 0),
        "spike_stride": records.spike_stride,
        "record_voltages": int(records.voltage_stride > 0),
        "voltage_stride": records.voltage_stride,
    }
    recorded = (records.words, records.spikes, records.voltages)
    return Step("lif", params, (parameters, state, currents, noises, *recorded, counts))


def lif_steps(
    backend: Backend,
    neurons: Neurons,
    state: Any,
    counts: Any,
    records: Records,
    step_count: int,
) -> Iterator[Step]:
    """The kernel calls that advance neurons by ``step_count`` steps, in pieces as long as the device allows.

    ``state`` holds (v, refractory counter) of each neuron before and after; ``counts`` grows
    by the spikes. Steps are numbered from 0 in every input and record, words from
    ``records.word_begin``.
    """
    currents, noises = (backend.upload(one.values) for one in (neurons.current, neurons.noise))
    buffers = (backend.upload(neurons.table), state, currents, noises, counts)
    most = PASS_STEPS if backend.device.kind == "gpu" else step_count
    for begin in range(0, step_count, most):
        yield lif_step_of(
            neurons,
            buffers,
            records._replace(word_begin=records.word_begin + begin // 64),
            step_begin=begin,
            step_count=min(most, step_count - begin),
            record_begin=begin,
        )


class Traces(NamedTuple):
    """Arrays of (neurons, steps) to fill: int32 spikes, int16 voltages, or None."""

    spikes: NDArray[np.int32] | None
    voltages: NDArray[np.int16] | None

    def part(self, neurons: slice, steps: slice) -> Traces:
        """Views of some of the neurons and steps; traces of one neuron may have the steps alone."""
        spikes, voltages = (None if trace is None else np.atleast_2d(trace)[neurons, steps] for trace in self)
        return Traces(spikes, voltages)  # type: ignore[arg-type]  # the generator mixes their dtypes


def _pieces(backend: Backend, neurons: Neurons, step_count: int, traces: Traces) -> tuple[int, int]:
    """Neurons and steps that one call records: what the buffers of the device hold. Steps are a multiple of 64."""
    step_bytes = 4 if traces.spikes is not None else 2 if traces.voltages is not None else 0
    if neurons.current.step_stride or neurons.noise.step_stride:
        step_bytes = max(step_bytes, 2)
    if not step_bytes:
        return neurons.count, step_count
    most = backend.largest_buffer // step_bytes
    neuron_piece = min(neurons.count, most // 64)
    step_piece = most // neuron_piece // 64 * 64
    return neuron_piece, min(step_count, step_piece)


def run(backend: Backend, neurons: Neurons, step_count: int, traces: Traces, record_words: bool) -> tuple[Any, Any]:
    """Run neurons from rest: fill the traces; a buffer of spikes as words, and uint32 counts."""
    word_count = -(-step_count // 64) if record_words else 0
    words = backend.empty("u64", neurons.count * word_count)
    counts = np.zeros(neurons.count, np.uint32)
    if not neurons.count or not step_count:
        return words, counts
    neuron_piece, step_piece = _pieces(backend, neurons, step_count, traces)
    for first in range(0, neurons.count, neuron_piece):
        chosen = slice(first, first + neuron_piece)
        group = neurons.part(chosen, slice(None)) if neuron_piece < neurons.count else neurons
        carried = backend.upload(group.rest()), backend.upload(counts[chosen])
        for begin in range(0, step_count, step_piece):
            steps = slice(begin, min(begin + step_piece, step_count))
            piece = group.part(slice(None), steps) if step_piece < step_count else group
            where = words, word_count, first * word_count + begin // 64
            count = steps.stop - begin
            counts[chosen] = _run_piece(backend, piece, carried, where, count, traces.part(chosen, steps))
    return words, counts


def _run_piece(
    backend: Backend,
    neurons: Neurons,
    carried: tuple[Any, Any],
    words: tuple[Any, int, int],
    step_count: int,
    traces: Traces,
) -> NDArray[np.uint32]:
    """Advance by as many steps as the device's buffers hold, fill the traces of these steps; the counts after them."""
    rows: list[Any] = []
    copies: list[tuple[NDArray[Any], Any]] = []
    for trace, dtype in zip(traces, ("u32", "i16"), strict=True):
        if trace is None:
            rows += (backend.empty(dtype, 0), 0)
        elif backend.host_arrays and trace.flags.carray:
            rows += (trace.reshape(-1).view(DTYPES[dtype]), step_count)
        else:
            # On a GPU no two neurons may share the 32 bits of two voltages.
            stride = step_count + step_count % 2
            rows += (backend.empty(dtype, neurons.count * stride), stride)
            copies.append((trace, rows[-2]))
    steps = list(lif_steps(backend, neurons, *carried, Records(*words, *rows), step_count))
    *contents, counts = backend.execute(steps, [*(buffer for _, buffer in copies), carried[1]])
    for (trace, _), content in zip(copies, contents, strict=True):
        trace[:] = content.reshape(neurons.count, -1)[:, :step_count].view(trace.dtype)
    return counts


def _target(name: str, given: Any, dtype: type[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array to write into, or an error that says what it should be."""
    if not isinstance(given, np.ndarray) or given.dtype != dtype or given.shape != shape:
        found = f"{given.dtype} of shape {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
        raise ValueError(f"{name} must be an ndarray of {np.dtype(dtype)} of shape {shape}; got {found}")
    if not given.flags.writeable:
        raise ValueError(f"{name} is read-only; pass an array that can be written, or leave out= away")
    return given


def _targets(record: Record | None, out: Any, shape: tuple[int, ...], neurons: Neurons) -> Traces:
    """The arrays to fill: those of ``out``, or new ones."""
    if record in ("spikes", "counts"):
        if out is not None:
            raise ValueError(f"record={record!r} takes no out=; it is for record=None, 'voltages' and 'both'")
        return Traces(None, None)
    if out is None:
        nbytes = math.prod(shape) * (6 if record is None else 2)
        require_host_memory(nbytes)
        try:
            spikes = np.empty(shape, np.int32) if record is None else None
            return Traces(spikes, np.empty(shape, np.int16))
        except (MemoryError, ValueError) as error:
            raise TooLargeError(f"{nbytes:,} bytes are needed; run fewer steps, or record less") from error
    if record is not None:
        traces = Traces(None, _target("out", out, np.int16, shape))
    elif not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ValueError(f"out must be a pair of arrays, spikes and voltages; got {type(out).__name__}")
    else:
        traces = Traces(_target("out[0]", out[0], np.int32, shape), _target("out[1]", out[1], np.int16, shape))
    arrays = [*(trace for trace in traces if trace is not None), neurons.current.values, neurons.noise.values]
    for index, array in enumerate(arrays[: len(arrays) - 2]):
        if any(np.may_share_memory(array, other) for other in arrays[index + 1 :]):
            raise ValueError("out shares memory with another argument; pass arrays of their own")
    return traces


def _recorded(
    neurons: Neurons,
    step_count: int,
    shape: tuple[int, ...],
    record: Any,
    out: Any,
    device: str | int | Device,
) -> Any:
    """Run, and return what ``record`` asks for; ``shape`` is () for a single neuron."""
    if record is not None:
        arguments.choice("record", record, RECORDS)
    packed = record in ("spikes", "both")
    if packed:
        arguments.integer("n_steps (the length of the bitstreams)", step_count, 1, MOST)
    traces = _targets(record, out, (*shape, step_count), neurons)
    backend = backend_for(device)
    words, counts = run(backend, neurons, step_count, traces, packed)
    if record == "counts":
        return counts.astype(np.uint64).reshape(shape)[()]
    if not packed:
        return traces.voltages if record else tuple(traces)
    streams = Bitstream(backend, [Part(0, math.prod(shape), words)], shape, step_count, "unipolar")
    return (streams, traces.voltages) if record == "both" else streams


def batch_lif_run(
    n_steps: int,
    leak_k: int,
    gain_k: int,
    i_t: int,
    noise_in: int = 0,
    data_width: int = 16,
    fraction: int = 8,
    v_rest: int = 0,
    v_reset: int = 0,
    v_threshold: int = 256,
    refractory_period: int = 2,
    *,
    record: Record | None = None,
    out: Any = None,
    device: str | int | Device = "auto",
) -> Any:
    """Run one neuron with constant inputs from rest.

    Parameters
    ----------
    n_steps : int
        Steps, 0 to 2**32 - 1.
    leak_k, gain_k, i_t, noise_in : int
        See `FixedPointLif.step`; -32768 to 32767.
    data_width, fraction, v_rest, v_reset, v_threshold, refractory_period : int
        See `FixedPointLif`.
    record : {None, "spikes", "voltages", "both", "counts"}
        What to return. None: both as plain arrays, as the reference does.
    out : ndarray or pair of ndarray, optional
        C-contiguous arrays to write into instead of new ones, in any number of calls: the pair
        (spikes, voltages) for ``record=None``, the voltages for ``"voltages"`` and ``"both"``.
        Arrays that are not contiguous cost a copy.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    (ndarray of int32, ndarray of int16), shape (n_steps,)
        With ``record=None``: spikes, 0 or 1, and v after each step.
    Bitstream of shape (), ndarray of int16, (Bitstream, ndarray) or numpy.uint64
        With ``record="spikes"``, ``"voltages"``, ``"both"``, ``"counts"`` (spikes of the whole
        run). The stream's length is ``n_steps``, at least 1, and it stays on the device.

    Raises
    ------
    ValueError
        A number out of range, or an ``out`` that does not fit.
    TypeError
        Something that is no integer.
    TooLargeError
        Records that do not fit the memory.

    Examples
    --------
    >>> import scgpu
    >>> spikes, v = scgpu.batch_lif_run(6, leak_k=20, gain_k=256, i_t=128, device="cpu")
    >>> spikes.tolist(), v.tolist()
    ([0, 0, 1, 0, 0, 0], [128, 246, 0, 0, 0, 128])
    """
    step_count = arguments.integer("n_steps", n_steps, 0, MOST)
    numbers = {
        "leak_k": leak_k,
        "gain_k": gain_k,
        "v_rest": v_rest,
        "v_reset": v_reset,
        "v_threshold": v_threshold,
        "refractory_period": refractory_period,
    }
    table = np.array([[arguments.integer(name, value, LOW, HIGH)] for name, value in numbers.items()], "<i2")
    current, noise = (
        Input(np.array([arguments.integer(name, value, LOW, HIGH)], "<i2"), 0, 0)
        for name, value in (("i_t", i_t), ("noise_in", noise_in))
    )
    neurons = Neurons(1, table, Format.checked(data_width, fraction), current, noise)
    return _recorded(neurons, step_count, (), record, out, device)


def batch_lif_run_multi(
    n_neurons: int,
    n_steps: int,
    leak_k: ArrayLike,
    gain_k: ArrayLike,
    currents: ArrayLike,
    data_width: int = 16,
    fraction: int = 8,
    v_rest: ArrayLike = 0,
    v_reset: ArrayLike = 0,
    v_threshold: ArrayLike = 256,
    refractory_period: ArrayLike = 2,
    *,
    record: Record | None = None,
    out: Any = None,
    device: str | int | Device = "auto",
) -> Any:
    """Run neurons that do not see each other, each with a constant current of its own, from rest.

    Parameters
    ----------
    n_neurons, n_steps : int
        0 to 2**32 - 1.
    leak_k, gain_k : int or array_like of int, shape (n_neurons,)
        See `FixedPointLif.step`; -32768 to 32767, for all neurons or for each.
    currents : array_like of int, shape (n_neurons,)
        Input current of each neuron, -32768 to 32767.
    data_width, fraction : int
        See `FixedPointLif`; the same for all neurons.
    v_rest, v_reset, v_threshold, refractory_period : int or array_like of int, shape (n_neurons,)
        See `FixedPointLif`; for all neurons or for each.
    record, out, device
        See `batch_lif_run`.

    Returns
    -------
    (ndarray of int32, ndarray of int16), shape (n_neurons, n_steps)
        With ``record=None``: spikes, 0 or 1, and v after each step.
    Bitstream of shape (n_neurons,), ndarray of int16, (Bitstream, ndarray) or ndarray of uint64
        With the other values of ``record``, as `batch_lif_run`.

    Raises
    ------
    ValueError
        A number out of range (its index is named), a wrong shape, or an ``out`` that does not fit.
    TypeError
        Something that is no integer.
    TooLargeError
        Records that do not fit the memory of host or device.

    Examples
    --------
    >>> import scgpu
    >>> trains = scgpu.batch_lif_run_multi(3, 1000, 20, 256, [10, 60, 128], record="spikes", device="cpu")
    >>> trains.count().tolist()
    [0, 143, 200]
    """
    count = arguments.integer("n_neurons", n_neurons, 0, MOST)
    step_count = arguments.integer("n_steps", n_steps, 0, MOST)
    values = arguments.integers16("currents", currents)
    if values.shape != (count,):
        raise ValueError(f"currents must have shape (n_neurons,) = ({count},); got {values.shape}")
    numbers = {
        "leak_k": leak_k,
        "gain_k": gain_k,
        "v_rest": v_rest,
        "v_reset": v_reset,
        "v_threshold": v_threshold,
        "refractory_period": refractory_period,
    }
    number_format = Format.checked(data_width, fraction)
    neurons = Neurons.checked(count, numbers, number_format, Input(values, 1, 0), Input.of(np.zeros((), "<i2")))
    return _recorded(neurons, step_count, (count,), record, out, device)


def batch_lif_run_varying(
    leak_k: ArrayLike,
    gain_k: ArrayLike,
    currents: ArrayLike,
    noises: ArrayLike | None = None,
    data_width: int = 16,
    fraction: int = 8,
    v_rest: ArrayLike = 0,
    v_reset: ArrayLike = 0,
    v_threshold: ArrayLike = 256,
    refractory_period: ArrayLike = 2,
    *,
    record: Record | None = None,
    out: Any = None,
    device: str | int | Device = "auto",
) -> Any:
    """Run neurons with a current, and noise, that change from step to step, from rest.

    Parameters
    ----------
    leak_k, gain_k : int or array_like of int, shape (n_neurons,)
        See `FixedPointLif.step`; -32768 to 32767, for all neurons or for each.
    currents : array_like of int, shape (n_steps,) or (n_neurons, n_steps)
        Input current in each step, -32768 to 32767: of one neuron, or a row for each.
    noises : array_like of int, of the shape of ``currents``, optional
        Added to v in each step.
    data_width, fraction : int
        See `FixedPointLif`; the same for all neurons.
    v_rest, v_reset, v_threshold, refractory_period : int or array_like of int, shape (n_neurons,)
        See `FixedPointLif`; for all neurons or for each.
    record, out, device
        See `batch_lif_run`.

    Returns
    -------
    (ndarray of int32, ndarray of int16), of the shape of ``currents``
        With ``record=None``: spikes, 0 or 1, and v after each step.
    Bitstream, ndarray of int16, (Bitstream, ndarray), or uint64 counts
        With the other values of ``record``, as `batch_lif_run`.

    Raises
    ------
    ValueError
        A number out of range (its index is named), a wrong shape, or an ``out`` that does not fit.
    TypeError
        Something that is no integer.
    TooLargeError
        Records that do not fit the memory of host or device.

    Examples
    --------
    >>> import scgpu
    >>> currents = [[128] * 8, [64] * 8]
    >>> scgpu.batch_lif_run_varying(20, 256, currents, record="counts", device="cpu").tolist()
    [2, 1]
    """
    values = arguments.integers16("currents", currents)
    if values.ndim not in (1, 2):
        raise ValueError(f"currents must have shape (n_steps,) or (n_neurons, n_steps); got {values.shape}")
    noise = arguments.integers16("noises", 0 if noises is None else noises)
    if noises is not None and noise.shape != values.shape:
        raise ValueError(f"noises must have the shape of currents, {values.shape}; got {noise.shape}")
    *shape, step_count = values.shape
    count = arguments.integer("number of neurons", shape[0] if shape else 1, 0, MOST)
    arguments.integer("number of steps", step_count, 0, MOST)
    numbers = {
        "leak_k": leak_k,
        "gain_k": gain_k,
        "v_rest": v_rest,
        "v_reset": v_reset,
        "v_threshold": v_threshold,
        "refractory_period": refractory_period,
    }
    neurons = Neurons.checked(count, numbers, Format.checked(data_width, fraction), Input.of(values), Input.of(noise))
    return _recorded(neurons, step_count, tuple(shape), record, out, device)
