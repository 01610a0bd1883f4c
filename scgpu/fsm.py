"""fsm: finite-state machines over bitstreams, and the sequential units of stochastic computing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu._abi import PASS_STEPS
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Step
from scgpu.bitstream import Bitstream, Part

MOST_STATES = 1 << 16


def _tabulated(name: str, given: ArrayLike, most: int) -> NDArray[np.int64]:
    """Integers from 0 to ``most``, as a table of a machine holds them."""
    array = arguments.array_of(name, given)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name} must hold integers; got dtype {array.dtype}")
    wrong = (array < 0) | (array > most)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
        raise ValueError(f"{name} must be from 0 to {most}; got {array[index]} at index {index}")
    return array.astype(np.int64)


class StateMachine:
    """A finite-state machine with one to three input streams and one or two output streams.

    Every stream of a tensor has a state of its own. At bit t the inputs make a symbol, bit t of the
    first input + 2 times that of the second + 4 times that of the third; the outputs of (state, symbol)
    become bit t of the results, and the transition of (state, symbol) the state of bit t + 1.

    Parameters
    ----------
    transitions : array_like of int, shape (S, 2), (S, 4) or (S, 8)
        The next state for each state and symbol of one, two or three inputs; S is 1 to 65,536.
    outputs : array_like of 0 and 1, shape (S,) or that of ``transitions``
        What is written: by the state alone (a Moore machine), or by state and symbol (a Mealy machine).
    second_outputs : array_like of 0 and 1, optional
        The same for a second output stream.
    initial : int
        The state before bit 0.

    Attributes
    ----------
    n_states, n_inputs, n_outputs : int
        Sizes of the machine.
    initial : int
        The state before bit 0.

    Raises
    ------
    ValueError
        A table of another shape, a state that is not there, an output that is no bit.
    TypeError
        A table that holds no integers.

    Examples
    --------
    >>> import numpy as np
    >>> import scgpu
    >>> parity = scgpu.StateMachine([[0, 1], [1, 0]], [[0, 1], [1, 0]])      # of the ones so far
    >>> (result,) = parity.run(scgpu.Bitstream.from_bits([[1, 0, 1, 1, 1]], device="numpy"))
    >>> result.bits().tolist()
    [[1, 1, 0, 1, 0]]
    """

    def __init__(
        self,
        transitions: ArrayLike,
        outputs: ArrayLike,
        second_outputs: ArrayLike | None = None,
        *,
        initial: int = 0,
    ) -> None:
        shape = arguments.array_of("transitions", transitions).shape
        if len(shape) != 2 or shape[1] not in (2, 4, 8) or not 1 <= shape[0] <= MOST_STATES:
            raise ValueError(
                f"transitions must have shape (S, 2), (S, 4) or (S, 8), S from 1 to {MOST_STATES}; got {shape}"
            )
        table = _tabulated("transitions", transitions, shape[0] - 1)
        written = (outputs,) if second_outputs is None else (outputs, second_outputs)
        for place, (name, given) in enumerate(zip(("outputs", "second_outputs"), written, strict=False)):
            bits = _tabulated(name, given, 1)
            if bits.shape not in (shape, shape[:1]):
                raise ValueError(f"{name} must have shape {shape[:1]} or {shape}; got {bits.shape}")
            table |= bits.reshape(shape[0], -1) << (16 + 8 * place)
        self.n_states: int = shape[0]
        self.n_inputs: int = shape[1].bit_length() - 1
        self.n_outputs = len(written)
        self.initial = arguments.integer("initial", initial, 0, self.n_states - 1)
        self._table = table.astype("<u4").reshape(-1)
        self._uploaded: dict[Backend, Any] = {}

    def __repr__(self) -> str:
        return (
            f"StateMachine(n_states={self.n_states}, n_inputs={self.n_inputs}, "
            f"n_outputs={self.n_outputs}, initial={self.initial})"
        )

    def run(
        self,
        *inputs: Bitstream,
        states: NDArray[np.uint32] | None = None,
        polarity: Polarity | None = None,
    ) -> tuple[Bitstream, ...]:
        """Advance by all bits of the inputs.

        Parameters
        ----------
        inputs : Bitstream
            As many as the machine has, of equal length and shape; those elsewhere move to the device
            of the first.
        states : ndarray of uint32, shape of the inputs, optional
            The state of each stream before bit 0, and after the call that after the last bit: a long
            stream may be run in pieces.
        polarity : {"unipolar", "bipolar"}, optional
            What the results stand for; default: that of the first input.

        Returns
        -------
        tuple of Bitstream
            One for each output, of the length and shape of the inputs.

        Raises
        ------
        ValueError
            Another number of inputs, inputs of different length or shape, a state that is not there.
        TypeError
            Inputs that are no bitstreams, states that are no array of uint32.
        TooLargeError
            The results do not fit the memory of the device.
        """
        if len(inputs) != self.n_inputs:
            raise ValueError(f"this machine has {self.n_inputs} inputs; got {len(inputs)}")
        first = _alike("this machine", {f"input {place}": one for place, one in enumerate(inputs)})
        kept = first.polarity if polarity is None else arguments.polarity_of(polarity)
        flat = self._initial_states(first.shape, states)
        backend = first._backend
        table = self._uploaded.get(backend)
        if table is None:
            table = self._uploaded[backend] = backend.upload(self._table)
        streams = [one._on(first._backend)._parts for one in inputs]
        made: list[list[Part]] = [[] for _ in range(self.n_outputs)]
        for parts in zip(*streams, strict=True):
            begin, end, _ = parts[0]
            state = backend.upload(flat[begin:end])
            steps, results = _steps(self, backend, table, [part.buffer for part in parts], state, first.length)
            after = backend.execute(steps, [] if states is None else [state])
            for target, buffer in zip(made, results, strict=True):
                target.append(Part(begin, end, buffer))
            if states is not None:
                states.reshape(-1)[begin:end] = after[0]
        return tuple(Bitstream(backend, target, first.shape, first.length, kept) for target in made)

    def _initial_states(self, shape: tuple[int, ...], states: NDArray[np.uint32] | None) -> NDArray[np.uint32]:
        if states is None:
            return np.full(math.prod(shape), self.initial, np.uint32)
        if type(states) is not np.ndarray or states.dtype != np.uint32:
            found = f"dtype {states.dtype}" if isinstance(states, np.ndarray) else type(states).__name__
            raise TypeError(f"states must be an ndarray of uint32; got {found}")
        if states.shape != shape:
            raise ValueError(f"states must have the shape of the inputs, {shape}; got {states.shape}")
        if not (states.flags.c_contiguous and states.flags.writeable):
            raise ValueError("states must be C-contiguous and writeable: it receives the states after the last bit")
        return _tabulated("states", states, self.n_states - 1).astype(np.uint32).reshape(-1)


def _alike(unit: str, inputs: Mapping[str, Any], same: tuple[str, ...] = ("length", "shape")) -> Bitstream:
    """The first of inputs, by their names, that are bitstreams and have these attributes in common."""
    first: Bitstream
    (place, first), *_ = inputs.items()
    for name, one in inputs.items():
        if not isinstance(one, Bitstream):
            raise TypeError(f"{unit} needs bitstreams; {name} is of type {type(one).__name__}")
        for kind in same:
            expected, found = getattr(first, kind), getattr(one, kind)
            if found != expected:
                raise ValueError(f"{unit} needs inputs of equal {kind}; {place} has {expected!r}, {name} has {found!r}")
    return first


def _require(unit: str, polarity: Polarity, **inputs: Bitstream) -> None:
    """Refuse inputs of a unit that are no bitstreams of this polarity, or of different length or shape."""
    _alike(unit, inputs)
    for one in inputs.values():
        if one.polarity != polarity:
            raise ValueError(f"{unit} needs {polarity} streams; got {one.polarity} ones")


def _steps(
    machine: StateMachine, backend: Backend, table: Any, inputs: Sequence[Any], state: Any, length: int
) -> tuple[list[Step], list[Any]]:
    """The kernel calls that advance the streams of one buffer, and the buffers that they fill."""
    word_count = -(-length // 64)
    stream_count = state.size
    results = [backend.empty("u64", stream_count * word_count) for _ in range(machine.n_outputs)]
    if not stream_count:
        return [], results
    unused = [inputs[0]] * (3 - machine.n_inputs)  # read by nobody
    targets = results if machine.n_outputs == 2 else [*results, backend.empty("u64", 0)]
    most = PASS_STEPS // 64 if backend.device.kind == "gpu" else word_count
    steps = []
    for begin in range(0, word_count, most):
        params = {
            "stream_count": stream_count,
            "word_count": word_count,
            "tail_bits": length - 64 * (word_count - 1),
            "word_begin": begin,
            "word_end": min(begin + most, word_count),
            "input_count": machine.n_inputs,
            "output_count": machine.n_outputs,
            "state_count": machine.n_states,
        }
        steps.append(Step("fsm", params, (*inputs, *unused, table, state, *targets)))
    return steps, results


def _symbols(n_states: int, n_inputs: int) -> tuple[NDArray[np.int64], ...]:
    """For every state and symbol of a machine the state, and the bit of each input."""
    state, symbol = np.indices((n_states, 1 << n_inputs))
    return state, *(symbol >> place & 1 for place in range(n_inputs))


@lru_cache(maxsize=64)
def _counting(n_states: int, first_one: int, end_one: int) -> StateMachine:
    """A saturating counter, up at a 1 and down at a 0, that writes 1 in the states ``first_one .. end_one``."""
    state, x = _symbols(n_states, 1)
    outputs = (state[:, 0] >= first_one) & (state[:, 0] < end_one)
    return StateMachine(np.clip(state + 2 * x - 1, 0, n_states - 1), outputs, initial=n_states // 2)


def _even_states(n_states: int) -> int:
    count = arguments.integer("n_states", n_states, 2, MOST_STATES)
    if count % 2:
        raise ValueError(f"n_states must be even, so that the halves of the machine are alike; got {count}")
    return count


def stanh(x: Bitstream, n_states: int) -> Bitstream:
    """Hyperbolic tangent of bipolar streams (Brown & Card 2001, Stanh).

    A saturating counter of ``n_states`` goes up at a 1 and down at a 0, and writes 1 in its upper half.
    For independent bits of value x the result tends to tanh(n/2 atanh x), which is near tanh(n x / 2) for
    small x, or large n.

    Parameters
    ----------
    x : Bitstream
        Bipolar.
    n_states : int
        An even number from 2 to 65,536. The counter starts in state n/2.

    Returns
    -------
    Bitstream
        Bipolar, of the shape of ``x``, on its device.

    Raises
    ------
    ValueError
        A unipolar stream, an odd number of states or one out of range.
    TypeError
        ``x`` is no `Bitstream`.

    References
    ----------
    B. D. Brown, H. C. Card, Stochastic neural computation I: computational elements, IEEE Transactions on
    Computers 50 (2001).
    """
    _require("stanh", "bipolar", x=x)
    count = _even_states(n_states)
    return _counting(count, count // 2, count).run(x)[0]


def sexp(x: Bitstream, n_states: int, gain: int) -> Bitstream:
    """Falling exponential of bipolar streams (Brown & Card 2001, Sexp).

    The counter of `stanh` writes 0 in its ``gain`` uppermost states. For independent bits of value x > 0
    the result tends to exp(-2 g x) while g is small beside n, and to 1 for x < 0; exactly,
    with r = (1 + x) / (1 - x), to (1 - r^(n - g)) / (1 - r^n).

    Parameters
    ----------
    x : Bitstream
        Bipolar.
    n_states : int
        2 to 65,536. The counter starts in state n // 2.
    gain : int
        1 to ``n_states`` - 1.

    Returns
    -------
    Bitstream
        Unipolar, of the shape of ``x``, on its device.

    Raises
    ------
    ValueError
        A unipolar stream, a number out of range.
    TypeError
        ``x`` is no `Bitstream`.

    References
    ----------
    As `stanh`.
    """
    _require("sexp", "bipolar", x=x)
    count = arguments.integer("n_states", n_states, 2, MOST_STATES)
    zeros = arguments.integer("gain", gain, 1, count - 1)
    return _counting(count, 0, count - zeros).run(x, polarity="unipolar")[0]


@lru_cache(maxsize=16)
def _linear_gain(n_states: int) -> StateMachine:
    state, x, k = _symbols(n_states, 2)
    upper = state >= n_states // 2
    # away from the middle always, towards the ends only where the second stream allows it
    moves = np.where(upper, np.where(x == 1, k, -1), np.where(x == 1, 1, -k))
    return StateMachine(np.clip(state + moves, 0, n_states - 1), upper, initial=n_states // 2)


def linear_gain(x: Bitstream, k: Bitstream, n_states: int) -> Bitstream:
    """Bipolar streams times a gain above 1, saturating at -1 and 1 (Brown & Card 2001, linear gain).

    A saturating counter that writes 1 in its upper half goes towards its middle at every bit that says
    so, but away from it only where ``k`` has a 1. With k = (G - 1) / (G + 1) and independent bits the
    result tends to min(max(G x, -1), 1), as the states become many.

    Parameters
    ----------
    x : Bitstream
        Bipolar.
    k : Bitstream
        Unipolar, of the same length and shape, of value (G - 1) / (G + 1), independent of ``x``:
        ``encode(np.full(x.shape, k), x.length, seed, purpose="select")``.
    n_states : int
        An even number from 2 to 65,536. The counter starts in state n/2.

    Returns
    -------
    Bitstream
        Bipolar, of the shape of ``x``, on its device.

    Raises
    ------
    ValueError
        Streams of the wrong polarity, of different length or shape, a number of states that is odd or
        out of range.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    As `stanh`.
    """
    _alike("linear_gain", {"x": x, "k": k})
    _require("linear_gain's x", "bipolar", x=x)
    _require("linear_gain's k", "unipolar", k=k)
    return _linear_gain(_even_states(n_states)).run(x, k)[0]


@lru_cache(maxsize=16)
def _relu(depth: int) -> StateMachine:
    n_states = 1 << depth
    state, x = _symbols(n_states, 1)
    written = x | (state < n_states // 2)
    return StateMachine(np.clip(state + 2 * written - 1, 0, n_states - 1), written, initial=n_states // 2)


def relu(x: Bitstream, depth: int = 5) -> Bitstream:
    """The larger of x and 0, of bipolar streams (uGEMM's ReLU with a counter).

    A saturating counter adds up the result, 1 as +1 and 0 as -1. While the sum is below zero, that is
    the counter below its middle, the result is 1; else it is the input.

    Parameters
    ----------
    x : Bitstream
        Bipolar.
    depth : int
        Bits of the counter, 1 to 16. It starts in the middle, 2^(depth - 1).

    Returns
    -------
    Bitstream
        Bipolar, of the shape of ``x``, on its device.

    Raises
    ------
    ValueError
        A unipolar stream, a depth out of range.
    TypeError
        ``x`` is no `Bitstream`.

    References
    ----------
    D. Wu, J. Li, R. Yin, H. Hsiao, Y. Kim, J. San Miguel, uGEMM: unary computing architecture for GEMM
    applications, ISCA 2020.
    """
    _require("relu", "bipolar", x=x)
    return _relu(arguments.integer("depth", depth, 1, 16)).run(x)[0]


@lru_cache(maxsize=16)
def _synchroniser(depth: int) -> StateMachine:
    state, a, b = _symbols(2 * depth + 1, 2)
    ahead = state - depth  # ones withheld from the first stream, less those withheld from the second
    moved = np.clip(ahead + a - b, -depth, depth)
    # a one that meets a withheld one of the other stream makes a pair; alone it is withheld while there is room
    pair = np.where(a > b, ahead < 0, ahead > 0)
    through = (a == b) | (moved == ahead)
    return StateMachine(moved + depth, np.where(through, a, pair), np.where(through, b, pair), initial=depth)


def synchronise(a: Bitstream, b: Bitstream, depth: int = 1) -> tuple[Bitstream, Bitstream]:
    """Streams of the same values whose ones come together (Lee et al. 2018, synchroniser).

    A one that has no partner is withheld, up to ``depth`` of them, until a partner comes: then both are
    written. The correlation of the results tends to +1, so that AND gives the smaller value, OR the
    larger one and XOR the difference.

    Parameters
    ----------
    a, b : Bitstream
        Of equal length, shape and polarity.
    depth : int
        Ones that may be withheld, 1 to 32,767. As many may be missing in one of the results.

    Returns
    -------
    tuple of Bitstream
        The two streams, on the device of ``a``.

    Raises
    ------
    ValueError
        Streams of different length, shape or polarity, a depth out of range.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    V. T. Lee, A. Alaghi, L. Ceze, Correlation manipulating circuits for stochastic computing, DATE 2018.
    """
    _alike("synchronise", {"a": a, "b": b}, ("length", "shape", "polarity"))
    first, second = _synchroniser(arguments.integer("depth", depth, 1, 32_767)).run(a, b)
    return first, second


@lru_cache(maxsize=16)
def _desynchroniser(depth: int) -> StateMachine:
    state, a, b = _symbols(2 * (depth + 1), 2)
    # ones withheld, and which stream the next one is withheld from: they alternate, first in, first out
    withheld, turn = state // 2, state % 2
    oldest = (turn + withheld) % 2
    takes = (a & b == 1) & (withheld < depth)
    gives = (a | b == 0) & (withheld > 0)
    first = np.where(takes, turn, np.where(gives, 1 - oldest, a))
    second = np.where(takes, 1 - turn, np.where(gives, oldest, b))
    return StateMachine(2 * (withheld + takes - gives) + (turn ^ takes), first, second)


def desynchronise(a: Bitstream, b: Bitstream, depth: int = 1) -> tuple[Bitstream, Bitstream]:
    """Streams of the same values whose ones avoid each other (Lee et al. 2018, desynchroniser).

    Of two ones at once one is withheld, up to ``depth`` of them, and written when both inputs are 0. It
    is the first stream's at the first time, then the second's, and so on in turn. The correlation of the
    results tends to -1, so that OR gives min(1, a + b) and AND max(0, a + b - 1).

    Parameters
    ----------
    a, b : Bitstream
        Of equal length, shape and polarity.
    depth : int
        Ones that may be withheld, 1 to 32,767; half of them, rounded up, may be missing in a result.

    Returns
    -------
    tuple of Bitstream
        The two streams, on the device of ``a``.

    Raises
    ------
    ValueError
        Streams of different length, shape or polarity, a depth out of range.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    As `synchronise`.
    """
    _alike("desynchronise", {"a": a, "b": b}, ("length", "shape", "polarity"))
    first, second = _desynchroniser(arguments.integer("depth", depth, 1, 32_767)).run(a, b)
    return first, second


@cache
def _shuffle_buffer(select_count: int) -> StateMachine:
    slots = 1 << select_count
    state, x, *selects = _symbols(1 << slots, 1 + select_count)
    slot = sum(select << place for place, select in enumerate(selects))
    half_ones = sum(1 << odd for odd in range(1, slots, 2))
    return StateMachine(state & ~(1 << slot) | x << slot, state >> slot & 1, initial=half_ones)


def decorrelate(x: Bitstream, *selects: Bitstream) -> Bitstream:
    """The bits of a stream in another order, by a shuffle buffer (Lee et al. 2018, decorrelator).

    At each bit the select streams address one of 2 or 4 slots: the bit that lies there is written, and
    that of ``x`` put in its place. The value is that of ``x``, but for the bits that are left in the
    buffer at the end; at the start the odd slots hold 1, the even ones 0.

    Parameters
    ----------
    x : Bitstream
        Of any polarity. Passing it through twice shuffles it further.
    selects : Bitstream
        One or two, of the length and shape of ``x``, of unipolar value 1/2, independent of it and of
        each other: ``encode(np.full(x.shape, 0.5), x.length, seed, purpose="select")``.

    Returns
    -------
    Bitstream
        Of the polarity and shape of ``x``, on its device.

    Raises
    ------
    ValueError
        Another number of select streams, streams of different length or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    As `synchronise`.
    """
    if len(selects) not in (1, 2):
        raise ValueError(f"decorrelate takes one or two select streams; got {len(selects)}")
    _alike("decorrelate", {"x": x, **{f"selects[{k}]": one for k, one in enumerate(selects)}})
    return _shuffle_buffer(len(selects)).run(x, *selects)[0]


@cache
def _cordiv() -> StateMachine:
    last, x, y = _symbols(2, 2)
    quotient = np.where(y == 1, x, last)
    return StateMachine(quotient, quotient)


@cache
def _cordiv_two() -> StateMachine:
    kept, x, y, select = _symbols(4, 3)
    quotient = np.where(y == 1, x, kept >> select & 1)
    # the newest quotient is bit 0
    return StateMachine(np.where(y == 1, kept << 1 & 2 | x, kept), quotient, initial=2)


def divide(x: Bitstream, y: Bitstream, select: Bitstream | None = None) -> Bitstream:
    """The quotient x / y of unipolar streams, x at most y (Chen & Hayes 2016, CORDIV).

    Where y has a 1 the result is the bit of x, and is kept; elsewhere it is the one kept last, or with
    ``select`` one of the last two. The operands must be correlated, so that the ones of x lie among
    those of y: from the same seed, tensor and stream index. `synchronise` does less well, because what
    it withholds leaves quotients that follow each other alike: with independent streams errors reach
    0.13, with ``select`` 0.09, for x up to 3/4 of y.

    Parameters
    ----------
    x, y : Bitstream
        Unipolar, of equal length and shape.
    select : Bitstream, optional
        Of the same length and shape, of value 1/2, independent of the operands: its bit is 0 for the
        newest kept one. The two are 0 and 1 at the start.

    Returns
    -------
    Bitstream
        Unipolar, of the shape of ``x``, on its device.

    Raises
    ------
    ValueError
        A bipolar operand, streams of different length or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    T.-H. Chen, J. P. Hayes, Design of division circuits for stochastic computing, ISVLSI 2016. The two kept
    bits are the kernel of uGEMM's division (see `relu`).
    """
    _require("divide", "unipolar", x=x, y=y)
    if select is None:
        return _cordiv().run(x, y)[0]
    _alike("divide", {"x": x, "y": y, "select": select})
    return _cordiv_two().run(x, y, select)[0]


@cache
def _square_root() -> StateMachine:
    state, x, select = _symbols(32, 2)
    inserted, last = state & 1, state >> 1  # the newest of the last four results is the lowest
    root = x | inserted
    earlier = np.where(select == 1, last >> 3, last >> 1) & 1
    return StateMachine((last << 1 & 15 | root) << 1 | earlier & ~inserted & 1, root)


def square_root(x: Bitstream, select: Bitstream) -> Bitstream:
    """Square root of unipolar streams, by feedback through a JK flip-flop.

    The root y = x + (1 - x) y / (1 + y), so the result is 1 where x has a 1, and elsewhere the state of a
    flip-flop with the result at J and 1 at K, which tends to y / (1 + y). J must not depend on the
    flip-flop, so it sees the result of 2 or 4 bits before, as ``select`` says (0 or 1). For independent
    bits what the result tends to is within 0.031 of the root, for x from 0.01 on.

    Parameters
    ----------
    x : Bitstream
        Unipolar.
    select : Bitstream
        Of the same length and shape, of value 1/2, independent of ``x``.

    Returns
    -------
    Bitstream
        Unipolar, of the shape of ``x``, on its device.

    Raises
    ------
    ValueError
        A bipolar stream, streams of different length or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    After UnarySim's square root with a JK trace (see `relu`), where J sees the result of the same bit.
    """
    _alike("square_root", {"x": x, "select": select})
    _require("square_root", "unipolar", x=x)
    return _square_root().run(x, select)[0]


@cache
def _jk_flip_flop() -> StateMachine:
    state, j, k = _symbols(2, 2)
    return StateMachine(np.where(state == 1, 1 - k, j), [0, 1])


def jk_flip_flop(j: Bitstream, k: Bitstream) -> Bitstream:
    """J / (J + K) of independent unipolar streams, by a JK flip-flop (Gaines 1969).

    The flip-flop is set where ``j`` has a 1, reset where ``k`` has one, and toggled where both have: with
    the same stream at both it is a T flip-flop. The result is its state before each bit, at first 0.

    Parameters
    ----------
    j, k : Bitstream
        Unipolar, of equal length and shape.

    Returns
    -------
    Bitstream
        Unipolar, of the shape of ``j``, on its device.

    Raises
    ------
    ValueError
        A bipolar stream, streams of different length or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    B. R. Gaines, Stochastic computing systems, Advances in Information Systems Science 2 (1969).
    """
    _require("jk_flip_flop", "unipolar", j=j, k=k)
    return _jk_flip_flop().run(j, k)[0]


@cache
def _t_flip_flop() -> StateMachine:
    return StateMachine([[0, 1], [1, 0]], [0, 1])


def t_flip_flop(t: Bitstream) -> Bitstream:
    """The state of a toggle flip-flop, 1/2 of whatever stream toggles it.

    Each 1 of ``t`` flips the state. The result is the state before each bit, at first 0, so that
    ``t & t_flip_flop(t)`` has every second 1 of ``t``: half its value, without another stream.

    Parameters
    ----------
    t : Bitstream
        Unipolar.

    Returns
    -------
    Bitstream
        Unipolar, of the shape of ``t``, on its device.

    Raises
    ------
    ValueError
        A bipolar stream.
    TypeError
        ``t`` is no `Bitstream`.

    References
    ----------
    As `toggle_add`.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.t_flip_flop(scgpu.Bitstream.from_bits([1, 0, 1, 1, 1], device="cpu")).bits().tolist()
    [0, 1, 1, 0, 1]
    """
    _require("t_flip_flop", "unipolar", t=t)
    return _t_flip_flop().run(t)[0]


@cache
def _toggle_adder() -> StateMachine:
    state, a, b = _symbols(2, 2)
    return StateMachine(state ^ a ^ b, np.where(a == b, a, state))


def toggle_add(a: Bitstream, b: Bitstream) -> Bitstream:
    """Half of the sum, (a + b) / 2, by a toggle flip-flop and without random numbers (Lee et al. 2017).

    Where the bits are equal, that is the result; where they differ, it is 0 and 1 in turn, 0 first. So there
    are floor((ones of a + ones of b) / 2) ones, whatever the correlation of the streams.

    Parameters
    ----------
    a, b : Bitstream
        Of equal length, shape and polarity.

    Returns
    -------
    Bitstream
        Of the polarity and shape of ``a``, on its device.

    Raises
    ------
    ValueError
        Streams of different length, shape or polarity.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    V. T. Lee, A. Alaghi, J. P. Hayes, V. Sathe, L. Ceze, Energy-efficient hybrid stochastic-binary neural
    networks for near-sensor computing, DATE 2017.

    Examples
    --------
    >>> import scgpu
    >>> a, b = (scgpu.Bitstream.from_bits(bits, device="cpu") for bits in ([1, 1, 0, 1, 0], [1, 0, 0, 0, 1]))
    >>> scgpu.toggle_add(a, b).bits().tolist()
    [1, 0, 0, 1, 0]
    """
    _alike("toggle_add", {"a": a, "b": b}, ("length", "shape", "polarity"))
    return _toggle_adder().run(a, b)[0]
