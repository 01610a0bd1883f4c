"""correlation: how alike streams are beyond what their values say, from exact counts of ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu.bitstream import Bitstream, bitstream_of
from scgpu.pairs import pair_counts

# Up to here the products of two counts, and their differences, are numbers of 64 bits.
LONGEST_INT64 = 2**31


def scc(a: Bitstream, b: Bitstream) -> NDArray[np.float64]:
    """Stochastic computing correlation of each stream of a with that of b, from -1 to 1.

    With p(a), p(b) the shares of ones and p(ab) that of times at which both are 1,

        SCC = (p(ab) - p(a) p(b)) / (min(p(a), p(b)) - p(a) p(b))             where p(ab) > p(a) p(b)
        SCC = (p(ab) - p(a) p(b)) / (p(a) p(b) - max(p(a) + p(b) - 1, 0))     where p(ab) < p(a) p(b)

    and 0 where they are equal, as for any stream without ones or without zeros. +1: the ones overlap as
    far as they can, so that AND is the minimum; -1: as little as they can; 0: AND is the product. Numerator
    and denominator are exact integers.

    Parameters
    ----------
    a, b : Bitstream
        Of equal length, polarity and shape. b is copied to the device of a if it lies elsewhere.

    Returns
    -------
    ndarray of float64, of their shape

    Raises
    ------
    ValueError
        Streams of different length, polarity or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    A. Alaghi, J. P. Hayes: Exploiting correlation in stochastic circuit design. ICCD 2013.

    Examples
    --------
    >>> import scgpu
    >>> a = scgpu.thermometer([2, 2], 4, device="cpu")
    >>> scgpu.scc(a, scgpu.thermometer([3, 2], 4, device="cpu")).tolist(), scgpu.scc(a, ~a).tolist()
    ([1.0, 1.0], [-1.0, -1.0])
    """
    return _scc(*_counts(a, b), a.length).reshape(a.shape)[()]


def pearson(a: Bitstream, b: Bitstream) -> NDArray[np.float64]:
    """Pearson's correlation coefficient of the bits of each stream of a and that of b, from -1 to 1.

        (p(ab) - p(a) p(b)) / sqrt(p(a) (1 - p(a)) p(b) (1 - p(b)))

    and 0 where a stream has no ones or no zeros, for which it is not defined. Unlike `scc` it reaches 1
    for equal streams alone and -1 for complements. Parameters and errors as `scc`.

    Returns
    -------
    ndarray of float64, of their shape
    """
    return _pearson(*_counts(a, b), a.length).reshape(a.shape)[()]


def scc_matrix(a: Bitstream, b: Bitstream | None = None) -> NDArray[np.float64]:
    """`scc` of all streams of a with all streams of b, or with each other.

    The ones in common are counted by one call of operation dense, on the device of a.

    Parameters
    ----------
    a, b : Bitstream
        Of equal length, at most 2**32 - 1 bits. Of any shape: streams are numbered in C order. Without b,
        a itself.

    Returns
    -------
    ndarray of float64, shape (streams of a, streams of b)

    Raises
    ------
    ValueError
        Streams of different length.
    TypeError
        Something that is no `Bitstream`.
    TooLargeError
        Longer streams, or counts that do not fit a buffer of the device.
    """
    return _scc(*_all_counts(a, b), a.length)


def pearson_matrix(a: Bitstream, b: Bitstream | None = None) -> NDArray[np.float64]:
    """`pearson` of all streams of a with all streams of b, or with each other.

    Parameters, result and errors as `scc_matrix`.
    """
    return _pearson(*_all_counts(a, b), a.length)


def _integers(counts: Any, length: int) -> NDArray[Any]:
    """Counts in a type that holds the product of two of them."""
    array: NDArray[Any] = np.asarray(counts).astype(np.int64 if length <= LONGEST_INT64 else object)
    return array


def _counts(a: Bitstream, b: Bitstream) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Ones in common, ones of a, ones of b, flat."""
    bitstream_of("a", a)
    both = (a & bitstream_of("b", b)).count()
    common, of_a, of_b = (_integers(ones, a.length).reshape(-1) for ones in (both, a.count(), b.count()))
    return common, of_a, of_b


def _all_counts(a: Bitstream, b: Bitstream | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Ones in common of all pairs, ones of a as a column, ones of b as a row."""
    bitstream_of("a", a)
    other = a if b is None else bitstream_of("b", b)
    if other.length != a.length:
        raise ValueError(f"b must have the length of a, {a.length}; got {other.length}")
    both = _integers(pair_counts(a, other), a.length)
    return both, _integers(a.count(), a.length).reshape(-1, 1), _integers(other.count(), a.length).reshape(1, -1)


def _scc(both: NDArray[Any], of_a: NDArray[Any], of_b: NDArray[Any], length: int) -> NDArray[np.float64]:
    """SCC from counts; its numerator and denominator times ``length`` squared are integers."""
    independent = of_a * of_b
    excess = both * length - independent
    most = np.minimum(of_a, of_b) * length - independent
    least = independent - np.maximum(of_a + of_b - length, 0) * length
    return _ratio(excess, np.where(excess > 0, most, least))


def _pearson(both: NDArray[Any], of_a: NDArray[Any], of_b: NDArray[Any], length: int) -> NDArray[np.float64]:
    """Pearson's coefficient from counts."""
    spread_a, spread_b = ((ones * (length - ones)).astype(np.float64) for ones in (of_a, of_b))
    # the root of a square is exact, so that equal streams give exactly 1
    return _ratio(both * length - of_a * of_b, np.sqrt(spread_a * spread_b))


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """The quotient; 0 where the numerator is 0, whatever the denominator."""
    ratio: NDArray[np.float64] = (numerator / np.where(numerator == 0, 1, denominator)).astype(np.float64)
    return ratio
