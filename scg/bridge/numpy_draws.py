"""A generator of NumPy whose discrete samples branch, for ``enumerate``."""

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from scg.bridge import chances
from scg.bridge.branching import NotAFunctionOfItsDraws, Paths
from scg.bridge.lines import user_line
from scg.core.aliases import Function, Operand, Operands, Result
from scg.errors import ScgTypeError, ScgValueError


@contextlib.contextmanager
def program(fn: Function, args: Sequence[object], paths: Paths, tail: float) -> Iterator[Callable[[], object]]:
    """``fn(*args, rng=...)`` with a generator that branches."""
    rng = Branching(paths, tail)
    with only_its_own_draws():
        yield lambda: fn(*args, rng=rng)


@contextlib.contextmanager
def only_its_own_draws() -> Iterator[None]:
    """Raise ScgValueError at the end where the global generators of NumPy or Python have moved meanwhile."""
    before = _global_state()
    try:
        yield
    except NotAFunctionOfItsDraws:  # it may be so for that reason
        if _global_state() == before:
            raise
    if _global_state() != before:
        raise ScgValueError(
            "enumerate: the function moved the global generator of NumPy or of Python, of which enumerate sees nothing:"
            f" draw from the generator or key that it is given ({user_line()})"
        )


def _global_state() -> Operands:
    state: Operand = np.random.get_state()
    return random.getstate(), state[1].tobytes(), state[2:]


class Branching(np.random.Generator):
    """``numpy.random.Generator`` whose discrete samples take the next values of a path; all else is refused.

    NumPy itself checks the arguments, and says what shape and dtype a sample has.
    """

    def __init__(self, paths: Paths, tail: float):
        super().__init__(np.random.PCG64(0))
        self._paths, self._tail, self._real = paths, tail, np.random.default_rng(0)

    def __repr__(self) -> str:
        return "<a generator whose discrete samples are enumerated>"

    def __reduce__(self) -> Any:  # as the base class
        raise ScgTypeError(
            f"enumerate: a copy of the generator would draw the same numbers again, which is not enumerated: keep the"
            f" draws instead ({user_line()})"
        )

    def spawn(self, n_children: int) -> Result:
        """Independent samples from each: the same tree."""
        return [self for _ in range(n_children)]

    def binomial(self, n: Operand, p: Operand, size: Operand = None) -> Result:
        like = self._real.binomial(n, p, size)
        return self._fill(like, lambda n, p: chances.binomial(int(n), float(p)), n, p)

    def hypergeometric(self, ngood: Operand, nbad: Operand, nsample: Operand, size: Operand = None) -> Result:
        like = self._real.hypergeometric(ngood, nbad, nsample, size)
        return self._fill(like, lambda *n: chances.hypergeometric(*map(int, n)), ngood, nbad, nsample)

    def poisson(self, lam: Operand = 1.0, size: Operand = None) -> Result:
        return self._fill(self._real.poisson(lam, size), lambda r: chances.poisson(float(r), self._tail), lam)

    def geometric(self, p: Operand, size: Operand = None) -> Result:
        return self._fill(self._real.geometric(p, size), lambda p: chances.geometric(float(p), self._tail), p)

    def logseries(self, p: Operand, size: Operand = None) -> Result:
        return self._fill(self._real.logseries(p, size), lambda p: chances.logseries(float(p), self._tail), p)

    def negative_binomial(self, n: Operand, p: Operand, size: Operand = None) -> Result:
        like = self._real.negative_binomial(n, p, size)
        return self._fill(like, lambda n, p: chances.negative_binomial(float(n), float(p), self._tail), n, p)

    def integers(
        self,
        low: Operand,
        high: Operand = None,
        size: Operand = None,
        dtype: Operand = np.int64,
        endpoint: bool = False,
    ) -> Result:
        like = self._real.integers(low, high, size, dtype, endpoint)
        low, high = (0, low) if high is None else (low, high)
        first, last = (np.broadcast_to(x, np.shape(like)).reshape(-1) for x in (low, high))
        ranges = [(int(a), int(b) - int(a) + bool(endpoint)) for a, b in zip(first, last, strict=True)]
        self._paths.foresee(math.prod([count for _, count in ranges]))
        drawn = self._paths.choose([chances.uniform(count) for _, count in ranges])
        return _like([a + k for (a, _), k in zip(ranges, drawn, strict=True)], like)

    def choice(
        self,
        a: Operand,
        size: Operand = None,
        replace: bool = True,
        p: Operand = None,
        axis: int = 0,
        shuffle: bool = True,
    ) -> Result:
        self._real.choice(a, size, replace, p, axis, shuffle)  # NumPy's own checks
        population: Operand = a if isinstance(a, (int, np.integer)) else np.asarray(a)
        n = int(population) if np.ndim(population) == 0 else population.shape[axis]
        shape = () if size is None else tuple(np.atleast_1d(size).tolist())
        k = math.prod(shape)
        if replace:
            draw = chances.uniform(n) if p is None else chances.categorical(p)
            self._paths.foresee(draw.count**k)
            places = self._paths.choose([draw] * k)
        elif p is None and not shuffle:
            places = self._floyd(n, k)
        else:
            places = self._paths.without_replacement(n if p is None else np.asarray(p, float).tolist(), k)
        index = np.array(places, dtype=np.int64).reshape(shape)
        if np.ndim(population) == 0:
            return int(index) if size is None else index
        return np.take(population, index, axis=axis)

    def _floyd(self, n: int, k: int) -> list[int]:
        """Without ``shuffle`` NumPy takes a subset by Floyd's algorithm, in the order in which that finds it."""
        self._paths.foresee(math.perm(n, k))
        taken: list[int] = []
        for j in range(n - k, n):
            (at,) = self._paths.choose([chances.uniform(j + 1)])
            taken.append(j if at in taken else at)
        return taken

    def multinomial(self, n: Operand, pvals: Operand, size: Operand = None) -> Result:
        like = self._real.multinomial(n, pvals, size)
        trials = np.broadcast_to(n, like.shape[:-1]).reshape(-1)
        weights = np.broadcast_to(np.asarray(pvals, float), like.shape).reshape(-1, like.shape[-1])
        rows = [self._counts(int(t), w) for t, w in zip(trials, weights, strict=True)]
        return _like(rows, like)

    def _counts(self, left: int, weights: Operand) -> list[int]:
        """One category after the other: a binomial number of the trials that are left."""
        counts = []
        # the last category has what the others leave, as it has for NumPy
        rest = np.maximum(1 - np.concatenate([[0.0], np.cumsum(weights[:-1])]), 0.0)
        for weight, remaining in zip(weights[:-1], rest, strict=False):
            share = min(1.0, weight / remaining) if remaining > 0 else 0.0
            (count,) = self._paths.choose([chances.binomial(left, float(share))])
            counts.append(count)
            left -= count
        return [*counts, left]

    def multivariate_hypergeometric(
        self, colors: Operand, nsample: int, size: Operand = None, method: Operand = "marginals"
    ) -> Result:
        like = self._real.multivariate_hypergeometric(colors, nsample, size, method)
        rows = []
        for _ in range(math.prod(like.shape[:-1])):
            left, others, row = int(nsample), int(sum(colors)), []
            for color in colors:
                others -= int(color)
                (count,) = self._paths.choose([chances.hypergeometric(int(color), others, left)])
                row.append(count)
                left -= count
            rows.append(row)
        return _like(rows, like)

    def permutation(self, x: Operand, axis: int = 0) -> Result:
        like = self._real.permutation(x, axis)
        array = np.arange(len(like)) if isinstance(x, (int, np.integer)) else np.asarray(x)
        return np.take(array, self._order(array.shape[axis]), axis=axis)

    def shuffle(self, x: Operand, axis: int = 0) -> None:
        if isinstance(x, np.ndarray):
            x[...] = self.permutation(x, axis)
        else:
            x[:] = [x[i] for i in self._order(len(x))]

    def permuted(self, x: Operand, *, axis: int | None = None, out: Operand = None) -> Result:
        array = np.array(x)
        if axis is None:
            found = array.reshape(-1)[self._order(array.size)].reshape(array.shape)
        else:
            last = np.moveaxis(array, axis, -1)
            orders = [self._order(last.shape[-1]) for _ in range(math.prod(last.shape[:-1]))]
            index = np.array(orders, dtype=np.int64).reshape(last.shape)
            found = np.moveaxis(np.take_along_axis(last, index, axis=-1), -1, axis)
        if out is None:
            return found
        out[...] = found
        return out

    def _order(self, n: int) -> list[int]:
        return self._paths.without_replacement(n, n)

    def _fill(self, like: Operand, draw: Function, *parameters: Operand) -> Result:
        flat = [np.broadcast_to(p, np.shape(like)).reshape(-1).tolist() for p in parameters]
        return _like(self._paths.choose([draw(*values) for values in zip(*flat, strict=True)]), like)


def _like(values: Operand, like: Operand) -> Result:
    """The values as what NumPy would return: an array, or a number."""
    if isinstance(like, np.ndarray):
        return np.array(values, dtype=like.dtype).reshape(like.shape)
    return type(like)(values[0])


def _refuse(name: str) -> Result:
    def refused(self: Branching, *args: object, **kwargs: object) -> Result:
        raise ScgTypeError(f"enumerate: rng.{name} {_REASONS.get(name, _CONTINUOUS)} ({user_line()})")

    refused.__name__ = name
    return property(refused) if name == "bit_generator" else refused


_CONTINUOUS = (
    "is a sample of a continuous distribution, whose outcomes cannot be listed: draw from a discrete one, or judge the"
    " estimator as scg.bridge.Samples"
)
_REASONS = {
    "random": "is continuous: in rng.random() < p the p cannot be seen. Write rng.binomial(1, p); for a category,"
    " rng.choice(k, p=p)",
    "uniform": "is continuous: in rng.uniform() < p the p cannot be seen. Write rng.binomial(1, p); for a category,"
    " rng.choice(k, p=p)",
    "bit_generator": "is raw bits, whose outcomes cannot be listed: draw by the generator's methods",
    "bytes": "is raw bits: write rng.integers(0, 256, size=n)",
    "zipf": "falls off too slowly to be cut: write rng.choice(k, p=p) with its first probabilities",
}
for _name in dir(np.random.Generator):
    if not _name.startswith("_") and _name not in vars(Branching):
        setattr(Branching, _name, _refuse(_name))
