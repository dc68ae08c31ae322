"""Numerical derivatives of functions, and how far rounding moves them."""

from collections.abc import Callable

import numpy as np

from scg.core.aliases import Numbers, Result

EPS = float(np.finfo(float).eps)
SAFETY = 4  # times the estimated error is still agreement


def extrapolated(f: Callable[[float], np.ndarray], size: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of ``f`` at 0 and its error, element by element; see ``check_gradient``."""
    for largest in (2, 9, 16, 23):
        best, bound = _ridders(f, size * 2.0**-largest, noise)
        step = size * 2.0 ** -(largest + 12)
        near, nearer = _central(f, step)[0], _central(f, step / 2)[0]
        apart = np.abs(near - best)
        trusted = apart <= SAFETY * (bound + np.abs(near - nearer) + 2 * noise / step)
        if np.all(trusted):
            break  # else a kink lies between: what converged there was the derivative of another piece
    return best, np.where(trusted, bound, np.inf)


def _ridders(f: Callable[[float], np.ndarray], largest: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    best: np.ndarray = np.nan * noise
    bound: np.ndarray = np.inf + 0 * noise
    row: list[np.ndarray] = []
    roundings: list[np.ndarray] = []
    for i in range(30):
        h = largest * 2.0**-i
        slope, coarse = _central(f, h)
        last, last_roundings, row, roundings = row, roundings, [slope], [noise / h + coarse]
        for j in range(1, min(len(last), 6) + 1):
            power = 4.0**j
            row.append(row[-1] + (row[-1] - last[j - 1]) / (power - 1))
            roundings.append((power * roundings[-1] + last_roundings[j - 1]) / (power - 1))
            total = np.maximum(np.abs(row[j] - row[j - 1]), np.abs(row[j] - last[j - 1])) + roundings[j]
            better = total < bound
            best, bound = np.where(better, row[j], best), np.where(better, total, bound)
        if i > 4 and np.all(roundings[0] >= bound):  # smaller steps are worse
            break
    return best, bound


def _central(f: Callable[[float], Numbers], h: float) -> tuple[Result, Result]:
    """(f(h) - f(-h)) / 2h, and its rounding where the values are far larger than at 0."""
    try:
        above, below = f(h), f(-h)
    except (ArithmeticError, ValueError):  # a step that left the domain
        return np.nan, np.nan
    return (above - below) / (2 * h), EPS * (np.abs(above) + np.abs(below)) / h


def noise_of(f: Callable[[list[np.ndarray]], np.ndarray], point: list[np.ndarray]) -> np.ndarray:
    """Three standard deviations of the rounding error of ``f``, from its fourth differences over x + k d, k = 1 ... 6
    and -1 ... -6.

    d is about 2^-30 x, another multiple for each element, lest errors cancel as they do in x - x. The differences of
    what is smooth vanish, and those of independent errors have variance 70 times theirs (Hamming, 1962). Where x lies
    on a kink, each side is smooth.
    """
    rng = np.random.default_rng(0)
    steps = [_step(x) * rng.uniform(0.5, 1.5, x.shape) for x in point]
    spread = 0.0
    for side in (2.0**-30, -(2.0**-30)):
        values = [f([x + k * side * step for x, step in zip(point, steps, strict=True)]) for k in range(1, 7)]
        spread = np.fmax(spread, np.max(np.abs(np.diff(values, 4, axis=0)), axis=0))
    return 3 * np.where(np.isfinite(spread), spread, 0) / 70**0.5


def change_of(f: Callable[[list[np.ndarray]], np.ndarray], point: list[np.ndarray], eps: float) -> np.ndarray:
    """The largest change of ``f`` when x changes by a relative ``eps``, alike or each element by itself; at most
    sqrt(eps) of f."""
    base, rng = f(point), np.random.default_rng(0)
    factors: list[Callable[[np.ndarray], Numbers]] = [
        lambda x: 1,
        lambda x: -1,
        *[lambda x: rng.uniform(-1, 1, x.shape)] * 3,
    ]
    changes = [np.abs(f([x + eps * factor(x) * _step(x) for x in point]) - base) for factor in factors]
    change = np.max([np.where(np.isfinite(c), c, 0) for c in changes], axis=0)
    return np.minimum(change, eps**0.5 * np.max(np.abs(base), initial=0))


def _step(x: np.ndarray) -> np.ndarray:
    """x, and for its zeros the size of the others."""
    return np.where(x == 0, size_of(x), x)


def size_of(x: np.ndarray) -> float:
    """The largest finite element in size, or 1."""
    finite = np.abs(x[np.isfinite(x)]) if x.ndim else np.abs(x)
    return float(np.max(finite, initial=0)) or 1.0
