"""What checks of gradient estimators return: verdicts, and measures of bias."""

import math
from dataclasses import dataclass
from html import escape

import numpy as np

from scg.core.aliases import Tree
from scg.core.tree import leaves


@dataclass(frozen=True, eq=False)
class Verdict:
    """What ``assert_unbiased`` found.

    ``status``       "unbiased", "biased" or "inconclusive"; ``reason`` in words, ``method`` the route: "exact", or
                     replicates against what
    ``bias``         mean of the estimator minus the reference, in the parameters' structure; it lies between ``low``
                     and ``high``
    ``detectable``   the bias that would have been found with probability ``power``, likewise
    ``worst``        path of the coordinate that is furthest from 0 for its interval, or the name of a projection where
                     no coordinate alone shows it; ``worst_bias``, ... its numbers
    ``ratio``        c where the mean is c times the reference, as far as the intervals tell; else nan
    ``draws``        replicates; 0 where all was exact
    ``tail_index``   the least over coordinates: the variance is infinite at 2 and below; infinity where it does not
                     matter
    ``rarest``       how often a value must be met to count: one of less probability per replicate may have been missed
                     by all of them with more probability than ``alpha``, and the verdict is without it; 0 where it was
                     exact, or by ``bounds``
    """

    status: str
    reason: str
    method: str
    bias: Tree
    low: Tree
    high: Tree
    detectable: Tree
    reference: Tree
    worst: str
    worst_bias: float
    worst_interval: tuple[float, float]
    worst_reference: float
    worst_detectable: float
    draws: int
    tail_index: float
    alpha: float
    power: float
    rarest: float = 0.0

    def __bool__(self) -> bool:
        return self.status == "unbiased"

    @property
    def ratio(self) -> float:
        """c where the mean is c times the reference, in all coordinates with an interval and as far as these tell; nan
        where it is not, or where an interval is wider than a fifth of |c - 1| times the largest element there."""
        return _ratio(*[np.concatenate([np.ravel(x) for _, x in leaves(tree)]) for tree in self._found])

    @property
    def _found(self) -> tuple[Tree, ...]:
        return self.bias, self.low, self.high, self.reference

    def _clues(self) -> list[str]:
        """What a mean that is a multiple of the reference is most often made by: of all, or of a few parameters."""
        if math.isfinite(self.ratio):
            return [_clue("the mean", self.ratio)]
        parts = zip(*[leaves(tree) for tree in self._found], strict=True)
        of_each = [(part[0][0], _ratio(*[np.ravel(x) for _, x in part])) for part in parts]
        return [_clue(f"the mean of {path}", ratio) for path, ratio in of_each if math.isfinite(ratio)][:3]

    def __repr__(self) -> str:
        found = f"bias {span(self.worst_bias, *self.worst_interval)} at {self.worst}"
        return (
            f"<Verdict {self.status}, {f'{self.draws} replicates against ' if self.draws else ''}{self.method}:"
            f" {found}>"
        )

    def __str__(self) -> str:
        rows = self._rows()
        return "\n".join([f"{self.status}: {self.reason}", *[f"  {name:<12}{text}" for name, text in rows]])

    def _repr_html_(self) -> str:
        color = {"unbiased": "#1b7f3b", "biased": "#b3261e"}.get(self.status, "#8a6d00")
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
            for name, text in self._rows()
        )
        status = f'<b style="color:{color}">{escape(self.status)}</b>: {escape(self.reason)}'
        return f'<table><caption style="text-align:left">{status}</caption>{rows}</table>'

    def _rows(self) -> list[tuple[str, str]]:
        """What a verdict tells, line by line: a name and a text."""
        worst = f"{self.worst}: bias {span(self.worst_bias, *self.worst_interval)}, of a gradient of"
        certain = f", with probability {self.power:.9g}" if self.draws else ""
        rows = [
            ("method", self.method if not self.draws else f"{self.draws} replicates against {self.method}"),
            ("worst", f"{worst} {self.worst_reference:.6g}"),
            ("detectable", f"{self.worst_detectable:.3g} there{certain}"),
        ]
        if self.status == "biased":
            rows[2:2] = [("ratio", clue) for clue in self._clues()]
        if self.draws:
            rare = f", but for values that are met in less than {self.rarest:.2g} of replicates" if self.rarest else ""
            rows += [
                ("tail index", f"{self.tail_index:.3g} (the variance is infinite at 2 and below)"),
                ("false alarm", f"at most {self.alpha:g}{rare}"),
            ]
        return rows


@dataclass(frozen=True, eq=False)
class Spread:
    """An estimate and the interval around it: of each coordinate, in the parameters' structure, and of their sum."""

    value: Tree
    low: Tree
    high: Tree
    total: tuple[float, float, float]

    def __str__(self) -> str:
        value, low, high = self.total
        return f"{value:.6g} in [{low:.6g}, {high:.6g}]"


@dataclass(frozen=True, eq=False)
class BiasReport:
    """What ``assert_bias`` measured: squared bias, variance, and their sum, the mean squared error; all intervals hold
    together with level 1 - alpha."""

    method: str
    draws: int
    bias: Tree
    squared_bias: Spread
    variance: Spread
    mean_squared_error: Spread
    worst: str
    tail_index: float

    def __str__(self) -> str:
        rows = [
            ("bias^2", self.squared_bias),
            ("variance", self.variance),
            ("mean squared error", self.mean_squared_error),
        ]
        head = f"{self.method}" if not self.draws else f"{self.draws} replicates against {self.method}"
        return "\n".join(
            [
                f"sums over coordinates, {head}; the bias is plainest at {self.worst}",
                *[f"  {name:<20}{row}" for name, row in rows],
            ]
        )


def _ratio(*found: np.ndarray) -> float:
    """As ``Verdict.ratio``, of flat (bias, low, high, reference)."""
    flat = np.array(found, float)
    bias, low, high, reference = flat[:, np.isfinite(flat).all(axis=0)]
    largest = np.max(np.abs(reference), initial=0.0)
    if not largest or bias.size < min(2, flat.shape[1]):
        return math.nan
    off = float(bias @ reference / (reference @ reference))
    told = np.max(high - low) <= abs(off) * largest / 5
    return 1 + off if told and np.all((low <= off * reference) & (off * reference <= high)) else math.nan


def _clue(mean: str, ratio: float) -> str:
    if abs(ratio) < 0.05:
        return f"{mean} is about 0: is what carries the gradient detached?"
    cause = "a sign?" if ratio < 0 else "a factor, or a sum in the place of a mean?"
    return f"{mean} is about {ratio:.3g} times the reference: {cause}"


def span(centre: float, low: float, high: float) -> str:
    """An estimate with its interval, as text."""
    return f"{centre:.6g} in [{low:.6g}, {high:.6g}]"
