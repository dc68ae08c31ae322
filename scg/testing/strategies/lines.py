"""The lines of drawn programs: samples, expressions of them, and costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from scg.core.aliases import Operand
from scg.testing.strategies.families import ENDLESS, FINITE, Family

Shape = tuple[int, ...]


class Expr(NamedTuple):
    """The text of an expression, and what is known of its value."""

    text: str
    shape: Shape


@dataclass
class _Drawn:
    """A sample of the program under construction."""

    name: str
    shape: Shape
    views: list[Expr]  # floating-point expressions of it
    chooses: Expr | None = None  # truths that it alone decides, where it has finitely many values


@dataclass
class Writer:
    """A program under construction: what is drawn, and the lines that draw it."""

    draw: st.DrawFn
    dtype: np.dtype
    budget: int
    leaves: list[Expr] = field(default_factory=list)
    drawn: list[_Drawn] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def one(self, *choices: Operand) -> Operand:
        """One of some things, the simplest first."""
        return choices[self.draw(st.integers(0, len(choices) - 1))] if len(choices) > 1 else choices[0]

    def of(self, choices: Sequence[Operand]) -> Operand:
        """One of a sequence, the simplest first."""
        return self.one(*choices)

    def number(self, x: float) -> str:
        """The text of a constant."""
        return f"{x}" if self.dtype == float else f"np.{self.dtype.name}({x})"

    def array(self, numbers: object) -> str:
        """The text of a constant array."""
        kind = "" if self.dtype == float else f", np.{self.dtype.name}"
        return f"np.array({numbers}{kind})"


def sample_line(w: Writer, name: str, finite: bool) -> tuple[str, Family]:
    """A line that samples, within the budget of outcomes."""
    families = FINITE if finite else FINITE + ENDLESS
    if not finite:
        families = w.of((ENDLESS, FINITE))
    fits = [f for f in families if f.size <= w.budget]
    family = w.of(fits or FINITE[:1])
    e = _parameter(w)
    independent = "Independent" in family.text
    if family.k:
        e = _of_length(w, e, family.k)
        batch = e.shape[:-1]
    else:
        if independent and not e.shape:
            e = Expr(f"({e.text} * {w.array([1.0, -0.5])})", (2,))
        batch = e.shape
    size = max(family.size, 1)

    def fitting(shape: Shape) -> bool:
        return size ** math.prod(shape) <= max(w.budget, size)

    if not fitting(batch):
        cut = f"[{', '.join('0' * len(batch))}]"
        e = Expr(_inner(e.text) + cut, e.shape[len(batch) :])
        batch = ()
        if independent:
            e, batch = Expr(f"{e.text}[None]", (1,)), (1,)
    shapes = [s for s in ((), (2,), (1,), (2, 1)) if s == () or fitting((*s, *batch))]
    shape = w.of(shapes)
    w.budget //= size ** math.prod((*shape, *batch)) if family.size else 1
    sampled = f", shape={shape}" if shape else ""
    text = f'{name} = scg.sample({family.of(e.text)}, ESTIMATOR, rng=rng{sampled}, name="{name}")'
    chooses = {"vector": f"{name}[..., 1] > 0"}.get(family.kind, f"{name} > 0")
    truths = Expr(chooses, (*shape, *batch)) if family.size and not family.moving else None
    w.drawn.append(_Drawn(name, (*shape, *batch), _views(w, name, (*shape, *batch), family), truths))
    return text, family


def _views(w: Writer, name: str, shape: Shape, family: Family) -> list[Expr]:
    """Floating-point expressions of a sample."""
    if family.kind == "index":
        table = w.array([0.5, -1.0, 2.0][: family.size])
        rows = w.array([[1.0, -0.5], [0.25, 2.0], [-1.5, 0.5]][: family.size])
        views = [
            Expr(f"scg.parameter({table})[{name}]", shape),
            Expr(f"np.where({name} == 1, {w.number(1.5)}, {w.number(-0.5)})", shape),
            Expr(f"scg.parameter({rows})[{name}]", (*shape, 2)),
        ]
        if w.dtype == float:  # with integers only that stays what it is
            views.insert(1, Expr(f"(0.5 * {name})", shape))
        views += [
            Expr(f"{leaf.text}[{name}]", shape)
            for leaf in w.leaves
            if len(leaf.shape) == 1 and leaf.shape[0] >= family.size
        ]
        return views
    if family.kind == "vector":
        weights = w.array([1.0, -0.5, 2.0][: family.k])
        return [
            Expr(f"{name}", (*shape, family.k)),
            Expr(f"({name} @ {weights})", shape),
            Expr(f"np.sum({name} * {weights}, axis=-1)", shape),
            Expr(f"{name}[..., 1]", shape),
            Expr(f"np.einsum('...k,k->...', {name}, {weights})", shape),
        ]
    views = [Expr(name, shape)]
    if family.size:
        views.append(Expr(f"np.where({name} > 0, {w.number(1.5)}, {w.number(-0.5)})", shape))
    return views


def _parameter(w: Writer) -> Expr:
    """An expression of a parameter, and maybe of an earlier sample."""
    leaf = w.of(w.leaves)
    if w.drawn and w.one(True, False):
        view = w.of(w.of(w.drawn[::-1]).views)
        if _joint(leaf.shape, view.shape) is None:
            view = Expr(f"np.sum({view.text})", ())
        joint = _joint(leaf.shape, view.shape)
        op = w.one("*", "+", "-")
        return Expr(f"({leaf.text} {op} {view.text})", joint or ())
    return leaf


def _of_length(w: Writer, e: Expr, k: int) -> Expr:
    """An expression with a last axis of length k."""
    if e.shape and e.shape[-1] == k and w.one(True, False):
        return e
    weights = w.array([1.0, -0.5, 0.25][:k])
    return Expr(f"{_inner(e.text)}[..., None] * {weights}" if e.shape else f"{e.text} * {weights}", (*e.shape, k))


def _joint(*shapes: Shape) -> Shape | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


# what is done to one array, by the text with X for it, and the shape of the result (None: not for this shape)
_LAYOUT: tuple[tuple[str, Callable[[Shape], Shape | None]], ...] = (
    ("X[0]", lambda s: s[1:]),
    ("X[1:]", lambda s: (s[0] - 1, *s[1:]) if s[0] > 1 else None),
    ("np.sum(X, axis=0)", lambda s: s[1:]),
    ("np.mean(X, axis=-1)", lambda s: s[:-1]),
    ("np.prod(X, axis=0)", lambda s: s[1:]),
    ("X[::-1]", lambda s: s),
    ("X[..., -1]", lambda s: s[:-1]),
    ("X[..., None]", lambda s: (*s, 1)),
    ("X.T", lambda s: s[::-1]),
    ("np.reshape(X, -1)", lambda s: (math.prod(s),)),
    ("np.max(X, axis=-1)", lambda s: s[:-1]),
    ("np.cumsum(X, axis=0)", lambda s: s),
    ("np.concatenate([X, 2 * X], axis=0)", lambda s: (2 * s[0], *s[1:])),
    ("np.roll(X, 1, axis=-1)", lambda s: s),
    ("np.broadcast_to(X, (2, *X.shape))", lambda s: (2, *s)),
    ("np.einsum('i...,i...->i...', X, X)", lambda s: s),
    ("X[np.array([0, 0])]", lambda s: (2, *s[1:])),
    ("np.mean(X, axis=0, keepdims=True)", lambda s: (1, *s[1:])),
    ("np.diff(X, axis=0)", lambda s: (s[0] - 1, *s[1:]) if s[0] > 1 else None),
    ("np.repeat(X, 2, axis=0)", lambda s: (2 * s[0], *s[1:])),
)
_BENT = ("(X - 0.45) ** 2", "np.exp(0.5 * X)", "np.sin(X)", "X * X", "np.tanh(X)", "1 / (1 + X * X)")
_JOINED = (
    "X * Y",
    "X + Y",
    "X - Y",
    "np.sin(X + 0.3 * Y)",
    "np.exp(0.25 * X * Y)",
    "np.maximum(X, 0.3 * Y)",
    "X / (1 + Y * Y)",
)


def cost_lines(w: Writer, branches: bool, finite: bool) -> list[str]:
    """The lines of a cost: parts, and what is made of them."""
    lines, parts = [], []
    for k in range(w.draw(st.integers(1, 3))):
        part = _part(w, finite)
        lines.append(f"t{k} = {part}")
        parts.append(f"t{k}")
    total = parts[0]
    for part in parts[1:]:
        op = w.one("+ ", "- ", "+ 0.5 * ", "* ")
        total = f"{total} {op}{part}" if op != "* " else f"({total}) * {part}"
    whole = [d.name for d in w.drawn if d.views[0].text.startswith("scg.parameter")]
    if whole and w.dtype == float:
        total += w.one("", f" + np.sum({whole[-1]})")  # of integers
    if branches and w.one(True, False):
        name = w.of(w.drawn)
        scalar = name.name if not name.shape and name.views[0].shape == () else f"np.sum({name.name})"
        lines += [f"if {scalar} > 0:", f"    return 0.5 * ({total})", f"return {total}"]
    else:
        lines.append(f"return {total}")
    return lines


def nested_lines(w: Writer, before: int) -> list[str]:
    """The lines of a cost that is made of the gradient of another one, ``inner``, and of the samples before it."""
    slope = " + ".join(
        [
            f"{c} * np.sum({leaf.text.replace('theta', 'slope')})"
            for c, leaf in zip((1.0, -0.5, 2.0, 0.7), w.leaves, strict=False)
        ]
    )
    views = [f"np.sum({d.views[0].text})" for d in w.drawn[:before]]
    weight = w.of(["value", "0.7", f"np.sum({w.leaves[0].text})", *views])
    ways = (
        "slope + value",
        "slope",
        "slope * WEIGHT",
        "slope ** 2",
        "WEIGHT * slope + np.sin(slope)",
        "np.tanh(slope - WEIGHT) + slope",
        "value * slope - WEIGHT",
    )
    return [
        "value, slope = scg.value_and_grad(inner)(theta)",
        f"slope = {slope}",
        f"return {w.of(ways).replace('WEIGHT', weight)}",
    ]


def _part(w: Writer, finite: bool) -> str:
    """A scalar."""
    e = w.of(w.of(w.drawn[::-1]).views)
    for _ in range(w.draw(st.integers(0, 2))):
        e = _step(w, e)
    if w.one(True, False):
        e = Expr(w.of(_BENT).replace("X", _inner(e.text)), e.shape)
    if w.one(False, True):
        e = _step(w, e)
    if not e.shape:
        return e.text
    return w.one(f"np.sum({e.text})", f"np.mean({e.text})")


def _step(w: Writer, e: Expr) -> Expr:
    kind = w.one("layout", "join", "bend", "choose")
    if kind == "layout" and e.shape:
        fitting = [
            (text, shape) for text, of in _LAYOUT if (shape := of(e.shape)) is not None and math.prod(shape) <= 16
        ]
        text, shape = w.of(fitting)
        return Expr(text.replace("X", _inner(e.text)), shape)
    if kind == "bend":
        return Expr(w.of(_BENT).replace("X", _inner(e.text)), e.shape)
    if kind == "choose":
        truths = [d.chooses for d in w.drawn if d.chooses is not None and _small(e.shape, d.chooses.shape)]
        if not truths:
            return e
        truth, other = w.of(truths), w.number(w.one(0.3, -0.5))
        chosen = w.one(f"np.where({truth.text}, X, {other})", f"np.where({truth.text}, {other}, X)")
        return Expr(chosen.replace("X", e.text), _joint(e.shape, truth.shape) or ())
    others = [*w.leaves, *[v for d in w.drawn for v in d.views]]
    fitting = [o for o in others if _small(e.shape, o.shape)]
    if not fitting:
        return e
    other = w.of(fitting)
    joined = w.of(_JOINED).replace("X", _inner(e.text)).replace("Y", other.text)
    return Expr(joined, _joint(e.shape, other.shape) or ())


def _small(*shapes: Shape) -> bool:
    """Whether arrays of these shapes fit together, and what they make is small."""
    joint = _joint(*shapes)
    return joint is not None and math.prod(joint) <= 16


def _inner(text: str) -> str:
    """The text as an operand."""
    return text if _closes(text) else f"({text})"


def _closes(text: str) -> bool:
    """Whether no operator stands outside of its parentheses."""
    depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c in " +-*/" and depth == 0:
            return False
    return depth == 0
