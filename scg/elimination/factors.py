"""Tables over a few discrete variables each, in the semiring of expectations.

A *factor* is a function of the values of the variables in its scope. Its entries are pairs (p, x): p a weight, x the
same weight times a cost. Pairs multiply as probabilities with costs that add up, and add as outcomes do:

    (p, x) (q, y) = (p q, p y + q x)        (p, x) + (q, y) = (p + q, x + y)

so that the product of all conditional probabilities (p, 0) and all terms of a cost (1, c), summed over all variables,
is (1, E[c]) (Eisner, 2002, "Parameter estimation for probabilistic finite-state transducers"; Li and Eisner, 2009). An
x of None stands for zeros, a p of None for ones.

Factors of equal shape stand in one ``Stack``. Its arrays may be Nodes: then what is computed of them is one, too.
"""

from typing import Any, NamedTuple

import numpy as np

from scg.core.node import Node


class Stack(NamedTuple):
    """Factors of one shape: ``scopes`` (rows, k) names the variables of each, slowest axis first; ``p`` and ``x`` are
    (rows, values of the first, ..., values of the k-th), or None. ``logs`` (rows,): log of what each row's entries are
    to be multiplied by, None for ones. ``rows`` (rows,): where factors share their entries, the row of each in p and x;
    None: its own."""

    scopes: Any
    p: Any = None
    x: Any = None
    logs: Any = None
    rows: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values the variables of a scope have."""
        return tuple((self.x if self.p is None else self.p).shape[1:])


class Pair(NamedTuple):
    """Entries (p, x) and the logarithm of their scale: arrays, or None."""

    p: Any
    x: Any
    logs: Any = None


def product(a: Pair, b: Pair) -> Pair:
    """(p, x) (q, y) = (p q, p y + q x), of arrays that broadcast."""
    p = b.p if a.p is None else a.p if b.p is None else a.p * b.p
    left = a.x if b.p is None or a.x is None else a.x * b.p
    right = b.x if a.p is None or b.x is None else a.p * b.x
    x = right if left is None else left if right is None else left + right
    return Pair(p, x, _added(a.logs, b.logs))


def summed(pair: Pair, axis: int) -> Pair:
    """The sum over the values of a variable."""
    p, x = [None if part is None else np.sum(part, axis=axis) for part in pair[:2]]
    return Pair(p, x, pair.logs)


def scaled(pair: Pair) -> Pair:
    """The same entries, of which the largest p of every row is one: the scale goes to ``logs``.

    The scale is a constant of which nothing is differentiated: c (p / c) is p, whatever c is.
    """
    p = pair.p.raw if type(pair.p) is Node else pair.p
    largest = np.max(p.reshape(len(p), -1), axis=1, initial=0)
    largest = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    by = 1 / largest.reshape(-1, *[1] * (p.ndim - 1))
    return Pair(pair.p * by, None if pair.x is None else pair.x * by, _added(pair.logs, np.log(largest)))


def _added(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b
