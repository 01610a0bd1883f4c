"""Products of all pairs of 8-bit numbers: what one AND or XNOR gate makes of two generators, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scgpu.backend import Device
from scgpu.encode import encode
from scgpu.pairs import pair_counts
from scgpu.sng import Lfsr, NumberTable, Sng, VanDerCorput

BITS = 8
LEVELS = 1 << BITS
FIRST_LFSR = Lfsr(BITS, start=1)
SECOND_LFSR = Lfsr(BITS, taps=(8, 5, 3, 2), start=45)


@dataclass(frozen=True)
class ProductErrors:
    """Errors of the products of all pairs, computed from integers.

    Attributes
    ----------
    mean, rms, largest : float
        Mean and largest absolute error, and root of the mean square, of AND on unipolar streams.
    bipolar_rms : float
        Root of the mean square of XNOR on the same bits as bipolar streams.
    """

    mean: float
    rms: float
    largest: float
    bipolar_rms: float


def product_errors(
    first: Sng | str, second: Sng | str, length: int = LEVELS, *, seed: int = 0, device: str | int | Device = "auto"
) -> ProductErrors:
    """Errors of the products of all pairs of 8-bit numbers.

    Number i / 256 of the first operand is the stream whose bit t is 1 where i > floor(U(t) / 2**24), U being
    the numbers of its generator; so are those of the second. All pairs of ANDs are one product of
    operation dense on the device; XNOR follows from it and the ones of each stream.

    Parameters
    ----------
    first, second : str or scgpu.sng.Sng
        Generators, as in `scgpu.encode`; the operands have purposes "input" and "weight".
    length : int
        Bits of each stream.
    seed : int
        Of the operands.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ProductErrors

    Examples
    --------
    >>> round(product_errors("sobol", "sobol", device="cpu").rms, 5)
    0.00237
    """
    level = np.arange(LEVELS)
    a, b = (
        encode(level / LEVELS, length, seed, resolution=BITS, sng=sng, purpose=purpose, device=device)  # type: ignore[arg-type]
        for sng, purpose in ((first, "input"), (second, "weight"))
    )
    both = pair_counts(a, b)
    unipolar = both * LEVELS**2 - np.outer(level, level) * length
    equal = length - a.count().astype(np.int64)[:, None] - b.count().astype(np.int64) + 2 * both
    signed = level - LEVELS // 2
    bipolar = (2 * equal - length) * (LEVELS // 2) ** 2 - np.outer(signed, signed) * length
    scale = length * LEVELS**2
    return ProductErrors(
        mean=int(np.abs(unipolar).sum()) / unipolar.size / scale,
        rms=_root_mean_square(unipolar) / scale,
        largest=int(np.abs(unipolar).max()) / scale,
        bipolar_rms=_root_mean_square(bipolar) / (scale // 4),
    )


def _root_mean_square(numbers: NDArray[np.int64]) -> float:
    return math.sqrt(int(np.square(numbers).sum()) / numbers.size)


def generator_pairs() -> Iterator[tuple[str, Sng | str, Sng | str, int]]:
    """The pairs of generators of the published table: a name, both of them, and the length of the streams."""
    first = FIRST_LFSR.numbers(0, LEVELS - 1, seed=0)
    second = SECOND_LFSR.numbers(0, LEVELS - 1, seed=0)
    with_zero = NumberTable(np.append(first, 0))  # the state that no LFSR reaches
    yield "Sobol dimension 1 x dimension 2", "sobol", "sobol", LEVELS
    yield "van der Corput x counter", "van_der_corput", "counter", LEVELS
    yield "van der Corput x Halton base 3", "van_der_corput", VanDerCorput(3), LEVELS
    yield "two LFSRs, zero appended", with_zero, NumberTable(np.append(second, 0)), LEVELS
    yield "LFSR x itself rotated by 1", NumberTable(first), NumberTable(np.roll(first, -1)), LEVELS - 1
    yield "LFSR x itself", with_zero, with_zero, LEVELS
