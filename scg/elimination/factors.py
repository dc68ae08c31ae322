"""Tables over a few discrete variables each, in the semiring of expectations.

A *factor* is a function of the values of the variables in its scope. Its entries are pairs (p, x): p a weight, x the
same weight times a cost. Pairs multiply as probabilities with costs that add up, and add as outcomes do:

    (p, x) (q, y) = (p q, p y + q x)        (p, x) + (q, y) = (p + q, x + y)

so that the product of all conditional probabilities (p, 0) and all terms of a cost (1, c), summed over all variables,
is (1, E[c]) (Eisner, 2002, "Parameter estimation for probabilistic finite-state transducers"; Li and Eisner, 2009). An
x of None stands for zeros, a p of None for ones.

Factors of equal shape stand in one ``Stack``. Its arrays may be Nodes: then what is computed of them is one, too.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scg.core.node import Value, value_of

_SMALL = 1e-260
_LARGE = 1e20  # entries are scaled where they are larger than this, or smaller than its inverse


Entries = Value | None
"""The entries of factors, (rows, values of each variable); None where all are one, or zero."""

Indices = np.ndarray | slice
"""Which rows."""


class Stack(NamedTuple):
    """Factors of one shape: ``scopes`` (rows, k) names the variables of each, slowest axis first; ``p`` and ``x`` are
    (rows, values of the first, ..., values of the k-th), or None. ``logs`` (rows,): log of what each row's entries are
    to be multiplied by, None for ones. ``rows`` (rows,): where factors share their entries, the row of each in p and x;
    None: its own."""

    scopes: np.ndarray
    p: Entries = None
    x: Entries = None
    logs: np.ndarray | None = None
    rows: np.ndarray | None = None

    @property
    def entries(self) -> Value:
        """Those that are there."""
        return either(self.p, self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values the variables of a scope have."""
        return self.entries.shape[1:]


class Pair(NamedTuple):
    """Entries (p, x) and the logarithm of their scale: arrays, or None."""

    p: Entries
    x: Entries
    logs: np.ndarray | None = None

    def each(self, change: Callable[[Value], Value]) -> "Pair":
        """The pair of what ``change`` makes of the entries that are there."""
        p, x = [None if part is None else change(part) for part in (self.p, self.x)]
        return Pair(p, x, self.logs)

    def rows(self, rows: Indices) -> "Pair":
        """Some rows."""
        p, x = [None if part is None else part[rows] for part in (self.p, self.x)]
        return Pair(p, x, None if self.logs is None else self.logs[rows])

    def times(self, by: Value) -> "Pair":
        """All entries times something."""
        return self.each(lambda part: part * by)

    @property
    def entries(self) -> Value:
        """Those that are there."""
        return either(self.p, self.x)

    @property
    def length(self) -> int:
        """The number of rows."""
        return len(self.entries)


def either(p: Entries, x: Entries) -> Value:
    """The one of both that is there."""
    entries = x if p is None else p
    assert entries is not None
    return entries


def blocks_of(values: Value, rows: Indices) -> Value:
    """Some rows, of an array or a Node, taken in blocks that stand together.

    With an axis for the blocks and one within them, which axis of a sample an element belongs to is not lost: of rows
    that are (steps, elements of a sample) those of some steps are taken.
    """
    n = len(values)
    if type(rows) is slice:
        rows = np.arange(n)[rows]
    starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) != 1)
    block = int(np.gcd.reduce([n, len(rows), *starts, *rows[starts]]))
    if block == n == len(rows):
        return values
    if block < 2:
        return values[rows]
    each = np.reshape(values, (n // block, block, *values.shape[1:]))[rows[::block] // block]
    return np.reshape(each, (len(rows), *values.shape[1:]))


def ranked(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ``np.unique(numbers, return_inverse=True)`` is, of few small numbers that are not negative: without a
    sort."""
    there = np.zeros(int(numbers.max(initial=-1)) + 1, bool)
    there[numbers] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[numbers]


def one_below_the_other(parts: Sequence[Value], axis: int = 0) -> Value:
    """Parts joined along an axis, by blocks of their lengths, for the same reason."""
    if len(parts) == 1:
        return parts[0]
    lengths = [part.shape[axis] for part in parts]
    block = math.gcd(*lengths)
    if block < 2:
        return np.concatenate(parts, axis=axis)
    first, rest = parts[0].shape[:axis], parts[0].shape[axis + 1 :]
    each = [np.reshape(part, (*part.shape[:axis], -1, block, *part.shape[axis + 1 :])) for part in parts]
    return np.reshape(np.concatenate(each, axis=axis), (*first, sum(lengths), *rest))


def product(a: Pair, b: Pair, times: Callable[[Value, Value], Value] = operator.mul) -> Pair:
    """(p, x) (q, y) = (p q, p y + q x), of arrays that broadcast, or of which ``times`` makes the products."""
    p = b.p if a.p is None else a.p if b.p is None else times(a.p, b.p)
    left = a.x if b.p is None or a.x is None else times(a.x, b.p)
    right = b.x if a.p is None or b.x is None else times(a.p, b.x)
    x = right if left is None else left if right is None else left + right
    return Pair(p, x, _added(a.logs, b.logs))


def summed(pair: Pair, axis: int) -> Pair:
    """The sum over the values of a variable."""
    p, x = [None if part is None else np.sum(part, axis=axis) for part in pair[:2]]
    return Pair(p, x, pair.logs)


def scaled(pair: Pair) -> tuple[Pair, np.ndarray | None]:
    """The same entries, of which the largest p of every row is one, and what they were multiplied by; None where no
    row has become small or large. The scale goes to ``logs``. Rows that one product made so small that entries may have
    become zero beside it, which count now, are NaN.

    It is a constant of which nothing is differentiated: c (p / c) is p, whatever c is.
    """
    p = value_of(pair.entries)
    largest = p.max(axis=tuple(range(1, p.ndim)), initial=0)
    if len(p) and largest.min() > 1 / _LARGE and largest.max() < _LARGE:
        return pair, None
    largest = np.where((largest > 0) & np.isfinite(largest), np.where(largest < _SMALL, np.nan, largest), 1.0)
    by = 1 / largest.reshape(-1, *[1] * (p.ndim - 1))
    logs = _added(pair.logs, np.log(largest))
    return pair.times(by)._replace(logs=logs), by


def _added(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return b if a is None else a if b is None else a + b
