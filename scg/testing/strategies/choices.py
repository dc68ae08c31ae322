"""What a drawn statement chooses: operands and statics, read off one number; matrices whose condition is bounded."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Operand, Result

BOUND = 4.0  # no value of a program is larger
GAP = 2.0**-7  # at a kink, as of max(x, y) where x = y, operands are at least so far apart


class Value(NamedTuple):
    """An operand: its text, which may stand anywhere in an expression, and its value."""

    text: str
    array: np.ndarray


class NoFit(Exception):
    """No value at hand suits the operation."""


class Pick:
    """Choices of operands and statics, all read off one number: zero takes the first of everything."""

    def __init__(self, values: Sequence[Value], entropy: int, max_elements: int):
        self.values, self.entropy, self.max_elements = values, entropy, max_elements

    def one(self, options: Sequence[Operand]) -> Operand:
        """One of some options; NoFit where there is none."""
        if not len(options):
            raise NoFit
        self.entropy, k = divmod(self.entropy, len(options))
        return options[k]

    def value(self, fits: Callable[[np.ndarray], object] = lambda x: True) -> Value:
        """One of the values that fit; NoFit where none does."""
        return self.one([v for v in self.values if fits(v.array)])

    def array(self, low: int = 1, high: int = 9) -> Value:
        """One with low to high axes."""
        return self.value(lambda x: low <= x.ndim <= high)

    def vector(self, least: int = 1) -> Value:
        """One with one axis of at least ``least`` elements, or one laid out so."""
        text, x = self.value(lambda x: x.size >= least)
        return Value(text, x) if x.ndim == 1 else Value(f"np.ravel({text})", np.ravel(x))

    def with_(self, *others: Value) -> Value:
        """One that broadcasts with ``others`` to a result that is not too large; rather not one of them, for x - x is
        no test."""
        shapes = [o.array.shape for o in others]
        fit = [v for v in self.values if size_of(*shapes, v.array.shape) <= self.max_elements]
        return self.one(sorted(fit, key=lambda v: any(v.text in o.text for o in others)))

    def within(self, low: float, high: float, *others: Value) -> Value:
        """One that broadcasts with ``others``, brought into [low, high] where it is not there."""
        text, x = self.with_(*others) if others else self.value()
        if low <= np.min(x) and np.max(x) <= high:
            return Value(text, x)
        if np.isinf(high):
            return Value(f"({low} + {text}**2)", low + x**2)
        middle, half = (low + high) / 2, (high - low) / 2
        return Value(f"({middle} + {half} * np.tanh({text}))", middle + half * np.tanh(x))

    def axis(self, x: np.ndarray, *more: Result) -> Result:
        """An axis, counted from either end; or one of ``more``."""
        return self.one([*more, *range(x.ndim), *range(-x.ndim, 0)])

    def axes(self, x: np.ndarray) -> str:
        """The statics of a reduction: no axis, one, or several; kept or not."""
        pairs = [(i, j) for i in range(x.ndim) for j in range(i + 1, x.ndim)]
        axis = self.axis(x, None, *pairs)
        return (
            self.one(["", ", keepdims=True"]) if axis is None else f", axis={axis}" + self.one(["", ", keepdims=True"])
        )

    def square(self) -> Value:
        """A square matrix, or a stack of them."""
        text, x = self.array()
        if x.ndim == 1:
            text, x = f"np.outer({text}, {text})", np.outer(x, x)
        elif x.shape[-1] != x.shape[-2]:
            text, x = f"np.matmul({text}, np.swapaxes({text}, -1, -2))", x @ np.swapaxes(x, -1, -2)
        return self.small(Value(text, x))

    def regular(self) -> Value:
        """x + c I with c at least |x| + 1: singular values lie between 1 and 2 |x| + 2."""
        text, x = self.square()
        c, n = _norm(x) + 1, x.shape[-1]
        return Value(f"({text} + {c} * np.eye({n}, dtype={text}.dtype))", x + c * np.eye(n))

    def definite(self) -> Value:
        """x x^T + I."""
        text, x = self.square()
        n, product = x.shape[-1], f"np.matmul({text}, np.swapaxes({text}, -1, -2))"
        return Value(f"({product} + np.eye({n}, dtype={text}.dtype))", x @ np.swapaxes(x, -1, -2) + np.eye(n))

    def separated(self) -> Value:
        """x + x^T + c diag(1, 2, ...), whose eigenvalues and singular values lie in disjoint discs (Gershgorin)."""
        text, x = self.square()
        c, n = 4 * _norm(x) + 1, x.shape[-1]
        diagonal = f"np.diag(np.arange(1, {n + 1}, dtype={text}.dtype))"
        value = x + np.swapaxes(x, -1, -2) + c * np.diag(np.arange(1, n + 1))
        return Value(f"({text} + np.swapaxes({text}, -1, -2) + {c} * {diagonal})", value)

    def small(self, value: Value) -> Value:
        """The value itself; NoFit where it is too large."""
        if value.array.size > self.max_elements:
            raise NoFit
        return value


def size_of(*shapes: tuple[int, ...]) -> float:
    """The number of elements that shapes broadcast to; infinite where they do not."""
    try:
        return float(np.prod(np.broadcast_shapes(*shapes)))
    except ValueError:
        return np.inf


def _norm(x: np.ndarray) -> float:
    """An integer that bounds the row sums, so the spectral norm of a symmetric x."""
    rows = max(np.max(np.sum(np.abs(x), -1)), np.max(np.sum(np.abs(x), -2)))
    return float(np.ceil(rows))


def apart(x: np.ndarray) -> bool:
    """Whether no two elements are so near that their order might change."""
    return x.size < 2 or bool(np.min(np.diff(np.sort(x, None))) > GAP)
