"""What chance enters by: the samples and the noise of a graph, element by element, and the values that each can
take."""

import math

import numpy as np

from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.distributions.base import Discrete, Distribution, FiniteSupport, FixedSupport
from scg.distributions.uniform import is_of_noise, noise_of, transported
from scg.elimination.finite import BudgetError, probabilities, values_of, written
from scg.errors import ScgValueError, here
from scg.exact.rules import (
    GAUSS,
    NESTED,
    PANELS,
    PIECES,
    Place,
    Rule,
    has_quantiles,
    matched,
    pieces,
    place_of,
    points_along,
    standard,
)
from scg.stochastic.sites import Site, is_noise

_NOTHING = 1e-20  # a weight that makes no difference to a mean
Choice = dict[Node, np.ndarray]
"""Values of leaves, with rows in front."""


class ConvergenceError(ScgValueError):
    """A mean over continuous values that did not settle, or for which no quadrature rule is known."""


class Leaf:
    """A sample whose value is held, or noise. Its *elements* are those of its batch, each with ``size`` values (of a
    rule of ``points``).

    ``varies``: its parameters depend on other leaves. ``adaptive``: there are more values than can be listed, so that
    ``size`` is a matter of accuracy.
    """

    def __init__(self, node: Node, name: str, varies: bool, budget: int):
        self.varies = varies
        self.node, self.name = node, name
        self.is_noise = is_noise(node)
        self.distribution = node.statics["distribution"] if self.is_noise else node.statics["site"].distribution
        self.batch = node.shape if self.is_noise else node.shape[: node.ndim - node.statics["site"].event_ndim]
        self.event = node.shape[len(self.batch) :]
        self.count = math.prod(self.batch)
        self.discrete = self.distribution.has(Discrete)
        if self.is_noise and self.discrete:
            raise ScgValueError(f"{name}: discrete noise cannot be enumerated: make it a sample ({here()})")
        self.adaptive = not self.distribution.has(FiniteSupport)
        if not self.adaptive and (size := self.distribution.count()) > budget:
            raise BudgetError(
                f"{name}: {self.distribution!r} has {written(size)} values, over the budget of {budget}: raise budget=,"
                f" or sample it ({here()})"
            )
        if self.adaptive and self.discrete and self.distribution.event_shape:
            raise BudgetError(f"{name}: the values of {self.distribution!r} cannot be listed; sample it ({here()})")
        score = None if self.is_noise else self.distribution.log_prob(node)
        # the same for all values
        self.score = score if score is None or type(score) is Node else parameter(np.asarray(score, float))
        self.moves = any([type(p) is Node for p in self.distribution.parameters.values()])
        self.cut = self._cut() if self.adaptive and self.discrete else 0
        self.breaks: list[np.ndarray] = []  # of the cost along each element, where known
        self.kinks: list[np.ndarray] = []  # of the density of each element
        self.panels: list[Rule] = []  # of each element, points and steps of an independent rule
        self.nested: list[Rule] = []  # further rows, of all elements, of rules for two elements together
        numbers = (
            self.adaptive
            and not self.discrete
            and not self.event
            and (not varies or self.is_noise or self.distribution.has(FixedSupport))
        )
        self.place: Place | None = place_of(self._flat_distribution()) if numbers else None
        self.refine(8, GAUSS)

    def refine(self, points: int, kind: int) -> None:
        """Choose the values: all of them, or the first ``points / 8`` times ``cut`` of a support without end, or those
        of a rule.

        ``steps`` are then those of a rule in pieces, whose weights are steps times density.
        """
        self.inner = 1
        self.fixed: np.ndarray | None = None
        self.steps: np.ndarray | None = None
        self.rule: Rule
        if not self.adaptive:
            self.fixed = values_of(self.distribution, self.node.shape, len(self.batch))
        elif self.discrete:
            low, size = float(np.min(getattr(self.distribution.support, "low", 0))), self.cut * points // 8
            self.fixed = np.broadcast_to((low + np.arange(float(size)))[:, None], (size, self.count))
        elif self.in_pieces and kind in (PANELS, NESTED):
            self._by_density(self.panels, self.nested if kind == NESTED else [])
        elif self.in_pieces and (kind == PIECES or any(map(len, self.breaks)) or not self._has_a_rule()):
            self._pieces(16 + points)
        elif self.is_noise:
            self.rule = standard(self.distribution, points, kind)
        else:
            self._of_a_draw(points, kind)
        self.size = len(self.fixed) if self.fixed is not None else len(self.rule[0]) ** self.inner
        self.size -= sum([len(x) for x, _ in self.nested]) if self.in_pieces and kind == NESTED else 0

    def _has_a_rule(self) -> bool:
        """Whether a rule is to be had that needs no density."""
        return has_quantiles(self.distribution) if self.is_noise else is_of_noise(self.distribution)

    def _cut(self) -> int:
        """How many values leave a tail below 1e-15, bounded by the geometric series of the last ratio, with the
        parameters that were recorded."""
        distribution, count = self.distribution.marginal.detached(), 16
        low = float(np.min(getattr(distribution.support, "low", 0)))
        while count < 2**20:
            p = np.exp(
                distribution.log_prob(
                    (low + count + np.arange(-2.0, 0.0)).reshape(2, *[1] * len(distribution.batch_shape))
                )
            )
            ratio = p[1] / np.maximum(p[0], np.finfo(float).tiny)
            if np.all((distribution.mean < low + count) & (ratio < 1) & (p[1] * ratio <= 1e-15 * (1 - ratio))):
                break
            count *= 2
        return count

    @property
    def in_pieces(self) -> bool:
        """Whether a rule can be put together of pieces: of numbers with a density between fixed ends."""
        return self.place is not None

    @property
    def by_density(self) -> bool:
        """Whether log_prob tells the weights."""
        return not self.is_noise and (self.discrete or self.steps is not None)

    @property
    def _weights(self) -> np.ndarray:
        """Of values that are fixed: what log_prob is still to be multiplied in, or the whole."""
        return self.rule[1] if self.is_noise or self.steps is None else self.steps

    @property
    def drawn_shape(self) -> tuple[int, ...]:
        """The sample axes: what ``sample`` takes in front of the distribution's own shape."""
        return self.batch if self.is_noise else self.batch[: len(self.batch) - len(self.distribution.batch_shape)]

    def grid(self) -> np.ndarray:
        """Values among which breaks are looked for, (rows, elements), in rising order."""
        values = np.stack([points_along(*self.at_element(e)) for e in range(self.count)], axis=1)
        return values if (ends := self._inner_ends()) is None else np.clip(values, *ends)

    def _flat_distribution(self) -> Distribution:
        return self.distribution if self.is_noise else self.distribution.detached()

    def at_element(self, e: int) -> tuple[float, float, float, float]:
        assert self.place is not None  # of numbers between known ends
        low, high, centre, scale = [float(np.broadcast_to(part, self.batch).reshape(-1)[e]) for part in self.place]
        return low, high, centre, scale

    def _pieces(self, n: int) -> None:
        self._by_density([pieces(*self.at_element(e), self.edges(e), n) for e in range(self.count)], [])

    def edges(self, e: int) -> np.ndarray:
        """Where the cost or the density of an element is not smooth."""
        return np.concatenate([self.breaks[e], self.kinks[e]]) if self.breaks else np.zeros(0)

    def _by_density(self, rules: list[Rule], further: list[Rule]) -> None:
        longest = max(len(x) for x, _ in rules)
        x = np.stack([np.append(x, np.full(longest - len(x), x[-1])) for x, _ in rules], axis=1)
        steps = np.stack([np.append(w, np.zeros(longest - len(w))) for _, w in rules], axis=1)
        own, longest = longest, longest + sum([len(x) for x, _ in further])
        x, steps = (np.concatenate([a, *[f[k] for f in further]]) for k, a in enumerate((x, steps)))
        with np.errstate(all="ignore"):
            rounded = np.asarray(x, self.node.dtype)
            log_p = (
                self._flat_distribution().log_prob(rounded.reshape(longest, *self.batch)).reshape(longest, self.count)
            )
            weights = np.where(steps > 0, steps * np.exp(np.where(steps > 0, log_p, 0)), 0)
        used = (weights > 0).any(axis=1) | self.varies | (np.arange(longest) >= own)
        self.fixed, self.steps = rounded[used], np.where(np.isfinite(weights), steps, 0)[used]
        self.rule = self.fixed, np.where(np.isfinite(weights), weights, 0)[used]

    def _of_a_draw(self, points: int, kind: int) -> None:
        distribution = self.distribution.detached()
        fixed = matched(distribution, points) if kind == GAUSS and not self.event and not self.varies else None
        if fixed is not None:
            batch = (1,) * (len(self.batch) - len(distribution.batch_shape)) + distribution.batch_shape
            x, w = (
                np.broadcast_to(
                    a.reshape(len(a), *(batch if a.shape[1] > 1 else [1] * len(self.batch))), (len(a), *self.batch)
                )
                for a in fixed
            )
            self.fixed = x.reshape(len(x), self.count)
            self.rule = self.fixed, w.reshape(len(w), self.count)
            return
        if not is_of_noise(self.distribution):
            raise ConvergenceError(
                f"{self.name}: no quadrature rule is known for {distribution!r}, which is no function of noise;"
                f" sample it ({here()})"
            )
        site: Site = self.node.statics["site"]
        base, self.noise_shape = noise_of(distribution, site.shape if site.drawn is None else site.drawn)
        if self.noise_shape[: len(self.batch)] != self.batch:
            raise ConvergenceError(
                f"{self.name}: no quadrature rule is known for {self.distribution!r}; sample it ({here()})"
            )
        self.inner = math.prod(self.noise_shape[len(self.batch) :])
        self.rule = standard(base, points, kind)

    def at(self, digits: np.ndarray, distribution: Distribution | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Values, and the weights of their rule (None where log_prob tells), for a number of one of the values for
        every row and element.

        -1 stands for the value that was recorded, with weight one. ``distribution`` is the sample's, of arrays, with
        rows in front where it has other parameters there.
        """
        chosen = np.maximum(digits, 0)
        if self.fixed is not None:
            values = self.fixed[chosen, np.arange(self.count)]
            weights: np.ndarray | None = None if self.discrete else self._weights[chosen, np.arange(self.count)]
        else:
            x, w = self.rule
            each = chosen[..., None] // len(x) ** np.arange(self.inner) % len(x)
            values, weights = x[each], np.prod(w[each], axis=-1)
            if not self.is_noise:
                assert distribution is not None
                values = np.asarray(transported(distribution, values.reshape(len(digits), *self.noise_shape)))
        values = np.reshape(values, (len(digits), self.count, *self.event))
        if weights is not None and not self.is_noise:
            values = self._off_the_ends(values, weights)
        kept = np.reshape(self.node.raw, (self.count, *self.event))
        values = np.where((digits < 0).reshape(*digits.shape, *[1] * len(self.event)), kept, values)
        values = np.asarray(values, self.node.dtype).reshape(len(digits), *self.node.shape)
        return values, None if weights is None else np.where(digits < 0, 1, weights)

    def _off_the_ends(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The values; those that matter no more are further from the ends of a bounded support than what may have been
        rounded to one, where no density is known."""
        if self.event or (ends := self._inner_ends()) is None:
            return values
        return np.where(np.abs(weights) < _NOTHING, np.clip(values, *ends), values)

    def _inner_ends(self) -> list[np.ndarray] | None:
        """The second numbers from the two ends of a support; None where it is not bounded, or moves."""
        if not self.distribution.has(FixedSupport):
            return None
        support, dtype = self.distribution.support, self.node.dtype
        low, high = (np.asarray(getattr(support, *end), dtype) for end in (("low", -math.inf), ("high", math.inf)))
        if not (np.any(np.isfinite(low)) and np.any(np.isfinite(high))):
            return None
        return [np.nextafter(np.nextafter(a, b), b) for a, b in ((low, high), (high, low))]

    def probabilities(self, log_p: Value) -> Value:
        """exp(log_p), of values that have a derivative."""
        return np.exp(log_p) if self.adaptive else probabilities(self.node, self.distribution, log_p, self.name)

    def drawn(self, rng: np.random.Generator, distribution: Distribution, rows: int) -> np.ndarray:
        """Samples of ``distribution``, which is this node's, of shape (rows, *node.shape)."""
        full = (
            distribution.expanded((rows, *self.batch)).sample(rng)
            if self.varies and not self.is_noise
            else distribution.sample(rng, (rows, *self.drawn_shape))
        )
        return np.asarray(full, self.node.dtype).reshape(rows, *self.node.shape)

    def described(self, count: int) -> str:
        """For a message that is about ``count`` of the elements."""
        return f"{self.name} ({count} element{'s' * (count > 1)} of {self.size} values)"

    def __str__(self) -> str:
        return self.described(self.count)
