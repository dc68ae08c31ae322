"""Whether what is made of a step element by element is continuous there, whatever numbers go in.

The operations of one element are a formula. Between its steps and kinks a formula is analytic; where one number x alone
takes it over them, it is a(x, y) on one side of a step at x = s and b(x, y) on the other. a(s, y) - b(s, y) is analytic
in the others, y: it vanishes for all y where it does for some that are drawn. So a formula is looked at once, with
drawn numbers in the place of what its arrays hold, and not at every call. What a formula does not tell, the values do
(``scg.stochastic.crossings``).
"""

import functools
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from scg.core.aliases import Operand, Operands, Result
from scg.core.axes import elementwise
from scg.core.node import Node
from scg.stochastic.sides import dips, jump_side, lowest, spread

_MOST = 48  # operations of a formula
_DRAWS = 8  # of the numbers that go in
_BISECTIONS = 64
_BRACKETS = 512
_STEEP = 1e4  # a slope, where the whole range is of order 1: what changes less across a gap is rounding


class Line(NamedTuple):
    """An operation. Without a primitive it stands for a number that goes in."""

    primitive: Any  # None for what is given
    operands: Operands  # each the number of a line or, as (type, value), a constant
    statics: tuple[tuple[str, object], ...]
    kind: str  # of the dtype of the result; "" where nobody looks at it


def is_continuous(step: Node, made: list[Node], edges: list[Node], touching: bool) -> bool:
    """Whether ``edges``, of the nodes ``made`` of a step element by element, are seen to be continuous where the step
    is taken. False where that is not known. ``touching``: the denominator of the step never changes its sign."""
    inside: dict[int, Node] = {}
    stack = list(made)
    while stack:
        n = stack.pop()
        if n.id not in inside and n.primitive.axes is elementwise and type(n.raw) is not tuple:
            inside[n.id] = n
            stack += [o for o in n.operands if type(o) is Node]
            if len(inside) > _MOST:
                return False
    number: dict[Hashable, int] = {}  # of nodes by id, and of arrays
    same: dict[Line, int] = {}  # equal lines are one
    lines: list[Line] = []
    try:
        for i in sorted(inside):
            n = inside[i]
            operands: list[Hashable] = []
            for o in n.operands:
                if type(o) is Node:
                    if type(o.raw) is tuple:
                        return False
                    key: Hashable = o.id
                elif isinstance(o, np.ndarray) and o.ndim:
                    key = "array", id(o)
                else:
                    operands.append((type(o), o.item() if isinstance(o, (np.ndarray, np.generic)) else o))
                    continue
                if key not in number:
                    number[key] = len(lines)
                    lines.append(Line(None, (), (), o.dtype.kind))
                operands.append(number[key])
            line = Line(n.primitive, tuple(operands), tuple(n.statics.items()) if n.statics else (), n.dtype.kind)
            if line not in same:
                same[line] = len(lines)
                lines.append(line)
            number[i] = same[line]
        return _continuous(tuple(lines), number[step.id], tuple([number[n.id] for n in edges]), touching)
    except TypeError:  # statics that have no hash
        return False


@functools.lru_cache(512)
def _continuous(lines: tuple[Line, ...], step: int, edges: tuple[int, ...], touching: bool) -> bool:
    """``is_continuous`` of a formula: it depends on nothing else."""
    lines = _shortened(lines, step, edges)
    moved = _moved(lines)
    if moved is None:
        return False
    with np.errstate(all="ignore"):
        try:
            return _agrees(lines, step, edges, moved, touching)
        except (TypeError, ValueError, ArithmeticError):
            return False


def _shortened(lines: tuple[Line, ...], step: int, edges: tuple[int, ...]) -> tuple[Line, ...]:
    """The lines, those that are smooth and made of numbers which nothing else looks at being numbers that go in: of
    where(x - y > 0, x - y, 0), x - y."""
    users = [0] * len(lines)
    for _, operands, _, _ in lines:
        for k in {o for o in operands if type(o) is int}:
            users[k] += 1
    short = list(lines)
    for k, (primitive, operands, _, kind) in enumerate(lines):
        of = {o for o in operands if type(o) is int}
        if (
            primitive is not None
            and kind == "f"
            and k != step
            and k not in edges
            and of
            and primitive.smooth
            and not _breaks(lines, k)
            and all(
                [short[o].primitive is None and short[o].kind == "f" and users[o] == 1 and o not in edges for o in of]
            )
        ):
            short[k] = Line(None, (), (), kind)
            for o in of:
                short[o] = Line(None, (), (), "")  # nobody looks at it
    return tuple(short)


def _breaks(lines: tuple[Line, ...], k: int) -> bool:
    """Whether a line is not known to be smooth."""
    primitive, operands, _, _ = lines[k]
    if primitive.random or primitive.kinks or primitive.jumps or primitive.silent:
        return True
    if primitive.cuts and "c" in _kinds(lines, k):
        return True
    place = _denominator(lines, k)
    return place is not None and (type(operands[place]) is int or operands[place][1] == 0)


def _denominator(lines: tuple[Line, ...], k: int) -> int | None:
    primitive, operands, _, _ = lines[k]
    return primitive.poles and primitive.poles(*[None if type(o) is int else o[1] for o in operands])


def _kinds(lines: tuple[Line, ...], k: int) -> list[str]:
    return [lines[o].kind if type(o) is int else np.result_type(o[1]).kind for o in lines[k].operands]


def _moved(lines: tuple[Line, ...]) -> int | None:
    """The one number that goes in on which all depends that is not smooth; None where there are several."""
    sources: list[set[int]] = []
    found: set[int] = set()
    for k, (primitive, operands, _, kind) in enumerate(lines):
        if primitive is None:
            if kind not in ("f", ""):
                return None  # a truth or an integer chooses as a step does
            sources.append({k})
            continue
        sources.append(set().union(*[sources[o] for o in operands if type(o) is int]))
        if _breaks(lines, k):
            if primitive.random:
                return None
            found |= sources[k]
    return found.pop() if len(found) == 1 else None


def _agrees(lines: tuple[Line, ...], step: int, edges: tuple[int, ...], moved: int, touching: bool) -> bool:
    """Whether the edges have one value on both sides of the step, wherever it is taken along the line of ``moved``."""
    rng = np.random.default_rng(0)
    constants = [
        abs(float(o[1]))
        for _, operands, _, _ in lines
        for o in operands
        if type(o) is tuple and isinstance(o[1], (int, float)) and np.isfinite(float(o[1])) and o[1]
    ]
    units = np.where(np.arange(_DRAWS) % 2, 1.0, min([1.0, *constants]))  # what is added to little hides nothing
    draws = {
        k: rng.standard_normal(_DRAWS) * units
        for k, line in enumerate(lines)
        if line.primitive is None and line.kind == "f"
    }
    size = 8 * max([1.0, *[c for c in constants if c < 1e9]])
    near = np.geomspace(1e-4 * min([1.0, *constants]), size, 300)
    grid = np.unique(np.concatenate([-near, near, np.linspace(-size, size, 401), constants, np.negative(constants)]))

    def at(x: Operand, of: Operand) -> list[Result]:
        """All lines, and last the side of the step, for the numbers ``x`` beside the draws ``of``."""
        values: list[Result] = []
        for k, (primitive, operands, statics, kind) in enumerate(lines):
            if primitive is None:
                values.append(x if k == moved else draws[k][of] if kind else None)
            else:
                given = [values[o] if type(o) is int else o[1] for o in operands]
                values.append(primitive.fn(*given, **dict(statics)))
            if k == step:
                taken = values[k] if side is None else side(*map(np.asarray, given), **dict(statics))
        return [*values, np.broadcast_to(taken, x.shape)]

    side = jump_side(lines[step].primitive, _kinds(lines, step))
    place = lines[step].operands[_denominator(lines, step) or 0] if touching else -1  # a denominator, or the side
    rows = np.arange(_DRAWS)
    values = at(np.broadcast_to(grid[:, None], (len(grid), _DRAWS)), rows)
    seen = values[place]
    places, of = np.nonzero(dips(seen) if touching else seen[1:] != seen[:-1])
    if not len(places) or len(places) > _BRACKETS:
        return False
    low, high, before = grid[places], grid[places + 1 + touching], seen[places, of]
    if touching:
        low, high = lowest(lambda x: at(x, of)[place], low, high)
    else:
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            same = at(middle, of)[place] == before
            low, high = np.where(same, middle, low), np.where(same, high, middle)
    least = high - low + 1e-15 * np.abs(high) + 1e-300  # the place itself may be one where nothing is defined
    around = np.abs(grid) <= 8 * (1 + np.max(np.abs(high)))
    # some poles are rounded to a number within a window
    for gap in (least, (1e-7 if touching else 1e-10) * (1 + np.abs(high))):
        below, above = at(low - gap, of), at(high + gap, of)
        for k in edges:
            a, b = [np.asarray(side[k], complex) for side in (below, above)]
            near, most = np.abs(a) + np.abs(b), np.broadcast_to(spread(values[k][around]), _DRAWS)[of]
            size = 4e-15 * near + 5e-7 * np.minimum(near, most) + _STEEP * gap * np.minimum(most, 1)
            if not np.all(np.abs(a - b) <= size):  # nor where one is NaN
                return False
    return True
