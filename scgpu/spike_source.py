"""Spikes that no neuron makes: streams from the contract's generator, and recorded trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import Backend
from scgpu.bitstream import Bitstream
from scgpu.encode import domain_of, encode_step, thresholds_of
from scgpu.timeline import BLOCK_STEPS


class SpikeSource(ABC):
    """Trains of spikes that a `Projection` can take in place of a population's.

    Attributes
    ----------
    count : int
        Trains.
    """

    count: int

    @abstractmethod
    def player(self, backend: Backend) -> Player:
        """What puts blocks of 64 steps into a buffer of a device."""


class Player(ABC):
    """Puts the spikes of some blocks into a buffer of rows, one for each train."""

    def __init__(self, backend: Backend, count: int) -> None:
        self.backend = backend
        self.count = count

    @abstractmethod
    def play(self, words: Any, first_block: int, block_count: int) -> None:
        """Fill words (train, block) with the blocks from ``first_block`` on."""


class BernoulliSource(SpikeSource):
    """Trains that fire in each step with a probability, independently.

    The spikes are those of `scgpu.encode` with the same arguments: bit t is step t.

    Parameters
    ----------
    n : int
        Trains, 1 to 2**32 - 1.
    probability : float or array_like of float, shape (n,)
        Of a spike in a step, 0 to 1. A Poisson process of rate r is one of ``r * step`` where that is small.
    seed : int
        0 to 2**64 - 1.
    tensor_id : int
        0 to 2**24 - 1; sources of one seed with different ids are independent.

    Raises
    ------
    ValueError
        A number out of range or not finite, or a wrong shape.
    TypeError
        Something that is not numbers.
    """

    def __init__(self, n: int, probability: ArrayLike, seed: int = 0, *, tensor_id: int = 0) -> None:
        self.count = arguments.integer("n", n, 1, 2**32 - 1)
        self.seed = arguments.seed_of(seed)
        self.tensor_id = arguments.integer("tensor_id", tensor_id, 0, 2**24 - 1)
        values = arguments.probabilities("probability", probability)
        if values.shape not in ((), (self.count,)):
            raise ValueError(f"probability must be a number or have shape ({self.count},); got {values.shape}")
        self.thresholds = thresholds_of(np.broadcast_to(values, (self.count,)), "unipolar")

    def player(self, backend: Backend) -> Player:
        """What makes the next blocks on the device."""
        return _Generator(backend, self)


class _Generator(Player):
    def __init__(self, backend: Backend, source: BernoulliSource) -> None:
        super().__init__(backend, source.count)
        self._thresholds = backend.upload(source.thresholds.copy())
        self._source = source

    def play(self, words: Any, first_block: int, block_count: int) -> None:
        step = encode_step(
            self._thresholds,
            words,
            sample_count=1,
            stream_count=self.count,
            length=BLOCK_STEPS * block_count,
            seed=self._source.seed,
            first_sample=0,
            domain=domain_of("input", self._source.tensor_id),
            first_word=first_block,
        )
        self.backend.submit([step])


class SpikeTrain(SpikeSource):
    """Recorded trains: bit t of each is its spike in step t of the network; none after the last bit.

    Parameters
    ----------
    streams : Bitstream of shape (n,)
        The trains, for example what `Recording` or `batch_lif_run_multi` gives.

    Raises
    ------
    ValueError
        Bitstreams of another shape, or none.
    TypeError
        Something else.
    """

    def __init__(self, streams: Bitstream) -> None:
        if not isinstance(streams, Bitstream):
            raise TypeError(f"streams must be a Bitstream; got {type(streams).__name__}")
        if len(streams.shape) != 1 or not streams.shape[0]:
            raise ValueError(f"streams must have shape (n,) with n of at least 1; got {streams.shape}")
        self._take(streams.words, streams.length)

    def _take(self, words: NDArray[np.uint64], length: int) -> None:
        self.words, self.length, self.count = words, length, len(words)

    @classmethod
    def of_words(cls, words: NDArray[np.uint64], length: int) -> SpikeTrain:
        """From packed words (n, W), as `Bitstream.from_words` takes them; they are copied, and stay on the host."""
        length = arguments.length_of(length)
        words = arguments.streams(words, length)
        if words.ndim != 2 or not len(words):
            raise ValueError(f"words must have shape (n, W) with n of at least 1; got {words.shape}")
        arguments.require_clear_tails(words, length)
        train = cls.__new__(cls)
        train._take(np.array(words, "<u8", order="C"), length)
        return train

    def player(self, backend: Backend) -> Player:
        """What uploads the next blocks."""
        return _Tape(backend, self.words)


class _Tape(Player):
    def __init__(self, backend: Backend, words: NDArray[np.uint64]) -> None:
        super().__init__(backend, len(words))
        self._words = words

    def play(self, words: Any, first_block: int, block_count: int) -> None:
        blocks = np.zeros((self.count, block_count), "<u8")
        found = self._words[:, first_block : first_block + block_count]
        blocks[:, : found.shape[1]] = found
        self.backend.write(words, blocks)
