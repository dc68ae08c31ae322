"""When a result of quadrature has settled, and what it is held against."""

import math
from collections.abc import Callable

import numpy as np

from scg.elimination.finite import BudgetError
from scg.errors import GuardError, ScgValueError, here
from scg.exact.coarse import coarser
from scg.exact.engine import Engine
from scg.exact.leaf import ConvergenceError
from scg.exact.nested import Nested
from scg.exact.panels import Found, Panels
from scg.exact.results import DIGITS
from scg.exact.rules import ENDS, GAUSS, NESTED, PANELS, PIECES

Arrays = list[np.ndarray]
Sized = tuple[Arrays, list[float]]
"""Arrays, and for each what its rounding is relative to."""
Compute = Callable[[], Sized]

_FINE = 2**7  # configurations by panels for one by coarse ones, at most
_LEVELS = {GAUSS: (8, 16, 32, 64, 128), PIECES: (16, 32, 64, 128, 256), ENDS: (32, 64, 128, 256)}


def converged(engine: Engine, compute: Compute, rtol: float, squares: bool = False) -> tuple[Arrays, float]:
    """Arrays computed with more and more values of continuous and endless leaves until they settle, and by how much
    they still moved.

    What settled is held against a quadrature that shares nothing with it; see ``panels``. ``compute`` also returns
    for each array what its rounding is relative to; ``squares`` says that squares of the terms are integrated too.
    """
    eps = engine.eps
    if not engine.adaptive:
        found, magnitudes = compute()
        return found, max(DIGITS * eps, engine.missing) * max(magnitudes, default=0.0)
    rtol, closest, stopped, check = max(rtol, 64 * eps), math.inf, None, Check(engine, compute, squares, rtol)

    def apart(a: Arrays, b: Arrays, magnitudes: list[float]) -> tuple[list[float], bool]:
        sizes = [_largest(x) for x in a]
        with np.errstate(all="ignore"):
            moved = [max(_largest(x - y), engine.missing * m) for x, y, m in zip(a, b, magnitudes, strict=True)]
        return moved, math.isfinite(max(sizes, default=0.0)) and all(
            c <= rtol * n + 64 * eps * m for c, n, m in zip(moved, sizes, magnitudes, strict=True)
        )

    for kind, levels in _LEVELS.items():
        if kind == GAUSS and engine.rough:  # symmetric quadrature rules agree on what they do not see
            continue
        last = None
        for points in levels:
            engine.evaluations = 0
            try:
                found, magnitudes = with_rules(engine, compute, points, kind)
            except BudgetError as error:
                engine.check_time()
                stopped = stopped or error
                break
            engine.infinite |= not all(np.isfinite(x).all() for x in found)
            if last is not None:
                moved, settled = apart(found, last, magnitudes)
                if settled and (other := check.of(found, magnitudes, points, kind)) is not None:
                    return found, max([*moved, *[DIGITS * eps * m for m in magnitudes], other], default=0.0)
                closest = min(closest, max(moved))
            last = found
    alone = check.alone(rtol)
    if alone is not None:
        return alone
    if stopped is not None:
        raise stopped
    several = (
        f": {engine.rough[0]!r} at {engine.rough[0].line} breaks where several samples decide together"
        if engine.rough
        else ""
    )
    raise ConvergenceError(
        f"the mean over {', '.join(map(str, engine.adaptive))} did not settle: the last change was"
        f" {closest:.3g}{check.reason}; what is integrated is not smooth{several}, or has no such mean; raise"
        f" rtol={' or budget=' * check.over},{undeclared(engine)} or sample it ({here()})"
    )


def undeclared(engine: Engine) -> str:
    """What to declare: of the first primitive on the way that does not say where it is smooth."""
    silent = [n for n in engine.leading if n.primitive.silent and n.id in engine.dependent]
    if not silent:
        return ""
    rule, line = silent[0].primitive, silent[0].line
    return (
        f" declare where {rule.name}, used at {line}, is not smooth, as primitive(..., steps=lambda x: x > 1) or"
        f" kinks=,"
    )


def with_rules(engine: Engine, compute: Compute, points: int, kind: int) -> Sized:
    """What is computed with quadrature rules of so many points."""
    for leaf in engine.adaptive:
        leaf.refine(points, kind)
    with np.errstate(all="ignore"):  # what does not exist may be infinite
        return compute()


class Check:
    """What a result is held against: the same computed with panels, where no part has too many configurations then, or
    else means along lines."""

    def __init__(self, engine: Engine, compute: Compute, squares: bool, rtol: float):
        self.engine, self.compute, self.squares, self.rtol = engine, compute, squares, rtol
        self.reason = ""
        self.over = False  # whether a rule by panels was over the budget
        self._known: dict[int, tuple[Panels, Found]] = {}
        self._results: dict[tuple[int, int, bool], Sized | None] = {}
        self._doubt = 0.0  # what rules for two elements left unresolved, as a fraction of E|.|

    def of(self, found: Arrays, magnitudes: list[float], points: int, kind: int) -> float | None:
        """How far ``found`` is from the check; None where that is too far. The leaves have the quadrature rules by
        which it was found."""
        panels, lines = self._lines(0)
        if not panels.elements:
            return 0.0
        other = self._computed(0, points)
        if other is None:
            off, e = panels.apart(lines)
            if off > self._rough:
                self.reason = f", and along {self.engine.leaf(e).name} there is more than the rule sees"
                return None
            return 2 * off * max(magnitudes, default=0.0)  # few lines do not have the worst
        doubt = max([d for d, _, _ in lines.doubt.values()], default=0.0)
        sizes = [max(m, n) for m, n in zip(magnitudes, other[1], strict=True)]
        return self._distance(found, other[0], sizes, max(1e-7, 1e3 * self.engine.eps, 2 * doubt, self.rtol))

    def alone(self, rtol: float) -> tuple[Arrays, float] | None:
        """Where no quadrature rule settles on what the panels say: their result, if panels that are cut at other places
        agree."""
        if not self._lines(0)[0].elements:
            return None
        fits = False
        for kind, coarse in ((PANELS, False), (PANELS, True), (NESTED, False)):
            if coarse and (fits or self._width() > _FINE * self.engine.budget):
                continue
            one = self._computed(0, 64, kind, coarse)
            two = None if one is None else self._computed(1, 64, kind, coarse)
            if one is None or two is None:
                continue
            fits = True
            distance = self._distance(one[0], two[0], one[1], 10 * rtol)
            doubt = max([self._doubt, *[d for d, _, _ in self._lines(0)[1].doubt.values()]])
            if distance is not None:
                return one[0], max(distance, max((10 * self._lines(0)[0].tolerance + doubt) * m for m in one[1]))
        return None

    def _distance(self, found: Arrays, other: Arrays, magnitudes: list[float], rtol: float) -> float | None:
        with np.errstate(all="ignore"):
            off = [_largest(a - b) for a, b in zip(found, other, strict=True)]
        good = all(math.isfinite(d) and d <= rtol * max(m, 1e-300) for d, m in zip(off, magnitudes, strict=True))
        if not good:
            self.reason = f", and a rule of other points differs by {max(off):.3g}"
        return max(off, default=0.0) if good else None

    def _lines(self, seed: int) -> tuple[Panels, Found]:
        if seed not in self._known:
            panels = Panels(self.engine, seed, self.squares)
            try:
                found = panels.resolve()
            except (BudgetError, GuardError):
                raise
            except ScgValueError as error:
                raise ConvergenceError(
                    f"far out along {', '.join(map(str, self.engine.adaptive))} there is no value to hold a result"
                    f" against: {error}"
                ) from None
            self._known[seed] = panels, found
            for e, (doubt, low, high) in found.doubt.items():
                leaf = self.engine.leaf(e)
                if doubt > max(1e-6, 1e3 * self.engine.eps):
                    raise ConvergenceError(
                        f"no mean was found over {leaf.name}: between {low:.9g} and {high:.9g} lies a part of"
                        f" {doubt:.2g} of it that does not settle; either the mean does not exist (E|.| is infinite),"
                        f" or the cost is not smooth at too many places;{undeclared(self.engine)} sample it ({here()})"
                    )
        return self._known[seed]

    def _computed(self, seed: int, points: int, kind: int = PANELS, coarse: bool = False) -> Sized | None:
        """What is computed by panels; None where these are too many configurations, or ``coarse`` ones do not see what
        lines at other values of other elements see."""
        panels, found = self._lines(seed)
        if (seed, kind, coarse) not in self._results:
            engine, known = self.engine, coarser(panels, found) if coarse else found.rules
            for k, leaf in enumerate(engine.leaves):
                first = engine.offsets[k]
                if leaf.adaptive and leaf.place is not None:
                    leaf.panels = [
                        known.get(first + j, (np.array([leaf.at_element(j)[2]]), np.ones(1))) for j in range(leaf.count)
                    ]
            state = [
                (
                    leaf,
                    {
                        name: getattr(leaf, name, None)
                        for name in ("fixed", "steps", "rule", "inner", "size", "noise_shape")
                    },
                )
                for leaf in engine.adaptive
            ]
            evaluations = engine.evaluations
            try:
                rules = self._pairs(panels) if kind == NESTED else []
                engine.joint = self._placed(rules)
                self._results[seed, kind, coarse] = with_rules(engine, self.compute, points, kind)
                if coarse and not self._sees(1 - seed):
                    self._results[seed, kind, coarse] = None
            except BudgetError:
                engine.check_time()
                self._results[seed, kind, coarse], self.over = None, True
            engine.evaluations, engine.joint = evaluations, []
            for leaf, attributes in state:
                for name, value in attributes.items():
                    setattr(leaf, name, value)
        return self._results[seed, kind, coarse]

    def _width(self) -> int:
        """The configurations of the widest part by all panels."""
        rules, leaf = self._lines(0)[1].rules, self.engine.leaf
        sizes = [[len(rules[e][0]) if e in rules else leaf(e).size for e in s] for s in set(self.engine.sets)]
        return max(map(math.prod, sizes), default=0)

    def _sees(self, seed: int) -> bool:
        """Whether the rules that the leaves have are right along lines."""
        panels, lines = self._lines(seed)
        return panels.apart(lines)[0] <= self._rough

    @property
    def _rough(self) -> float:
        """How far a rule may be off along a line, which is rougher than the mean over all."""
        return max(1e-6, 1e3 * self.engine.eps, 30 * self.rtol)

    def _pairs(self, panels: Panels) -> list[Nested]:
        """A rule for each two elements that meet in a part of the cost. Raises BudgetError where more than two do, or
        none."""
        continuous = set(panels.elements)
        pairs = sorted({tuple(sorted(s & continuous)) for s in self.engine.sets if len(s & continuous) > 1})
        if not pairs or any([len(p) > 2 for p in pairs]):
            raise BudgetError(f"a rule is for two continuous samples together ({here()})")
        return [Nested(panels, *p) for p in pairs]

    def _placed(self, rules: list[Nested]) -> list[tuple[tuple[int, ...], list[int], int]]:
        """The rules, put behind the rows that their leaves have."""
        engine = self.engine
        found: list[tuple[tuple[int, ...], list[int], int]] = []
        for leaf in engine.leaves:
            leaf.nested = []
        for nested in rules:
            pair, (x, steps) = (nested.outer, nested.inner), nested.rule()
            self._doubt = max(self._doubt, nested.doubt)
            if nested.doubt > max(1e-6, 1e3 * engine.eps):
                names = " and ".join([engine.leaf(e).name for e in pair])
                raise ConvergenceError(
                    f"no mean was found over {names}: a part of {nested.doubt:.2g} of it does not settle; either the"
                    f" mean does not exist (E|.| is infinite), or the cost is not smooth at too many places;"
                    f"{undeclared(engine)} sample it ({here()})"
                )
            owners = [int(engine.owner[e]) for e in pair]
            starts = [sum([len(rows) for rows, _ in engine.leaves[k].nested]) for k in owners]
            for k in set(owners):
                leaf = engine.leaves[k]
                rows = (
                    np.tile([leaf.at_element(j)[2] for j in range(leaf.count)], (len(x), 1)),
                    np.zeros((len(x), leaf.count)),
                )
                for side, e in enumerate(pair):
                    if owners[side] == k:
                        rows[0][:, engine.column(e)], rows[1][:, engine.column(e)] = (
                            x[:, side],
                            steps[:, side],
                        )
                leaf.nested.append(rows)
            found.append((pair, starts, len(x)))
        return found


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0))
