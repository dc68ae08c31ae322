"""Biased estimators that pass a gradient through a discrete sample, by way of something smooth."""

from typing import ClassVar, final

import numpy as np

from scg.core.axes import elementwise
from scg.core.node import Value
from scg.core.options import is_integer, is_number
from scg.core.primitive import smooth_primitive
from scg.distributions.base import Discrete, Distribution, Shape
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical, OneHotCategorical
from scg.distributions.uniform import UNIT
from scg.errors import ScgValueError, here
from scg.estimators.rebar import hidden, keys
from scg.estimators.tools import logits_of
from scg.primitives.layout import stop_gradient
from scg.special import sigmoid, softmax
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.formulas import as_broadcast
from scg.stochastic.sites import Site, noise_node, place

straight = smooth_primitive(
    as_broadcast, elementwise, None, lambda g, out, hard, soft: g, name="straight_through", same=True
)
"""The value of the first operand, with the derivative of the second."""


class _Biased(Estimator):
    """What the three have in common: they are biased, and their samples are zeros and ones on a floating-point
    scale."""

    unbiased = False
    accepted: ClassVar[tuple[type, ...]] = (Bernoulli, OneHotCategorical)

    def objection(self, distribution: Distribution) -> str:
        return unlike(distribution, self.accepted)


def unlike(distribution: Distribution, accepted: tuple[type, ...]) -> str:
    """Why a distribution is none of those accepted, as "needs ..., got ..."; empty where it is one."""
    if isinstance(distribution, accepted):
        return ""
    hint = " (a OneHotCategorical, whose samples a gradient can pass)" if isinstance(distribution, Categorical) else ""
    return f"needs a {' or '.join(kind.__name__ for kind in accepted)}, got {distribution!r}{hint}"


@final
class StraightThrough(_Biased):
    """d f(z) / dt = f'(z) d E[z] / dt: the sample passes the gradient to its mean (Bengio, Leonard and Courville,
    2013).

    Biased: E f'(z) stands where a difference quotient of f belongs; unbiased where f is linear. One evaluation. The
    value is the discrete sample. The derivative is a function of the sample alone, its own mean given the sample: there
    is no noise that ``GumbelSoftmax(rao_blackwell=k)`` would average. For any discrete distribution with a mean whose
    samples are floating-point numbers.

    For the logits l of a Bernoulli or OneHotCategorical sample the gradient may pass to softmax(l / ``temperature``) in
    place of the mean softmax(l), sharper or smoother than what was drawn (decoupled straight-through: Shah et al.,
    2024; their temperature forward stands in the distribution, logits = l / forward, and temperature = backward /
    forward); and with a ``gap`` to softmax(k / temperature), where the keys

        k_z = max l,   k_i = min(l_i, max l - gap) for the others,   dk/dl the identity,

    have the sample on top, as Gumbel keys given the sample have, but without their noise (gapped straight-through: Fan
    et al., 2022; 1 is usual). For a coin sigmoid(k / temperature), k = s max(s l, gap), s = 2z - 1. With either of them
    not even a linear cost is without bias.
    """

    accepted = (Discrete,)

    def __init__(self, temperature: float | None = None, gap: float | None = None):
        if temperature is not None and not (is_number(temperature) and temperature > 0):
            raise ScgValueError(
                f"StraightThrough: temperature must be a positive number, or None, got {temperature!r} ({here()})"
            )
        if gap is not None and not (is_number(gap) and gap >= 0):
            raise ScgValueError(f"StraightThrough: gap must be a number of at least 0, or None, got {gap!r} ({here()})")
        self.temperature = None if temperature is None else float(temperature)
        self.gap = None if gap is None else float(gap)

    def objection(self, distribution: Distribution) -> str:
        if self.temperature is not None or self.gap is not None:
            return unlike(distribution, _Biased.accepted)
        lacks = super().objection(distribution)
        if lacks or distribution.dtype.kind == "f":
            return lacks
        return (
            f"needs samples of floating-point numbers, got {distribution!r} with samples of {distribution.dtype} (those"
            " of OneHotCategorical are)"
        )

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: Shape) -> Value:
        z = _held(distribution, rng, shape)
        if self.temperature is None and self.gap is None:
            return straight(z, distribution.mean)
        l = logits_of(distribution)
        if self.gap is not None:
            l = straight((_gapped_coin if isinstance(distribution, Bernoulli) else _gapped)(z, l, self.gap), l)
        l = l / (self.temperature or 1.0)
        return straight(z, sigmoid(l) if isinstance(distribution, Bernoulli) else softmax(l, axis=-1))


def _gapped_coin(z: Value, l: Value, gap: float) -> Value:
    s = 2 * z - 1
    return s * np.maximum(s * l, gap)


def _gapped(z: Value, l: Value, gap: float) -> Value:
    top = np.max(l, axis=-1, keepdims=True)
    return np.where(z > 0.5, top, np.minimum(l, top - gap))


@final
class ReinMax(_Biased):
    """Straight-through of second order (Liu et al., 2023, "Bridging discrete and backpropagation: straight-through and
    beyond").

    With logits l, p = softmax(l) and the one-hot sample z,

        d z / dl := 2 J((p + z) / 2) - J(p) / 2,   J(q) = diag(q) - q q^T the Jacobian of softmax where it is q:

    Heun's rule for the difference quotients f(i) - f(j), each from the derivatives at both ends. Biased; exact in the
    mean for f of degree two in a Bernoulli sample. One evaluation. The value is the discrete sample. As with
    ``StraightThrough`` the derivative has no noise given the sample.
    """

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: Shape) -> Value:
        z = _held(distribution, rng, shape)
        l, p = logits_of(distribution), distribution.p  # type: ignore[attr-defined]
        link = sigmoid if isinstance(distribution, Bernoulli) else softmax
        half = 0.5 * (p + z)
        at_half = (
            np.log(half) - np.log1p(-half)
            if link is sigmoid
            else np.log(np.maximum(half, float(np.finfo(p.dtype).tiny)))
        )
        moved = link(stop_gradient(at_half - l) + l)
        return straight(z, 2 * moved - 0.5 * link(l))


@final
class GumbelSoftmax(_Biased):
    """z = softmax((l + g) / temperature), g Gumbel noise, l the logits (Jang, Gu and Poole, 2017; Maddison, Mnih and
    Teh, 2017).

    For a Bernoulli sample sigmoid((l + g) / temperature), g logistic noise. Biased, less so as the temperature falls,
    while the variance grows. One evaluation. The value is *not* a sample of the distribution but of its relaxation, the
    Concrete distribution, so that the cost is another one too; with ``hard=True`` it is the discrete sample, argmax(l +
    g) as one-hot vector, with the derivative of the relaxed one.

    ``rao_blackwell=k``, with ``hard``, draws the discrete sample first and then k sets of keys l + g given it, and
    takes the mean of their derivatives (Paulus, Maddison and Krause, 2021). The cost is evaluated once, at the same
    sample. The mean of the gradient is that without, and its variance E[Var[d | z]] (1 - 1/k) less.
    """

    def __init__(self, temperature: float, hard: bool = False, rao_blackwell: int | None = None):
        if not is_number(temperature) or temperature <= 0:
            raise ScgValueError(f"GumbelSoftmax: temperature must be a positive number, got {temperature!r} ({here()})")
        if not isinstance(hard, (bool, np.bool_)):
            raise ScgValueError(f"GumbelSoftmax: hard must be True or False, got {hard!r} ({here()})")
        if rao_blackwell is not None and not (is_integer(rao_blackwell, 1) and hard):
            raise ScgValueError(
                "GumbelSoftmax: rao_blackwell must be None, or with hard=True an integer of at least 1 (keys are drawn"
                f" given the discrete sample), got {rao_blackwell!r} with hard={hard} ({here()})"
            )
        self.temperature, self.hard = float(temperature), bool(hard)
        self.rao_blackwell = None if rao_blackwell is None else int(rao_blackwell)

    @property
    def keeps_distribution(self) -> bool:  # type: ignore[override]
        """Whether the value is a sample of the distribution itself."""
        return self.hard

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: Shape) -> Value:
        if self.rao_blackwell is not None:
            return self._given_the_sample(distribution, rng, shape, self.rao_blackwell)
        u = noise_node(UNIT, rng, distribution.full_shape(shape), distribution.dtype)
        if isinstance(distribution, Bernoulli):
            keys = logits_of(distribution) + (np.log(u) - np.log1p(-u))
            soft, hard = sigmoid(keys / self.temperature), keys > 0
        else:
            keys = logits_of(distribution) - np.log(-np.log(u))
            soft = softmax(keys / self.temperature, axis=-1)
            values = np.arange(distribution.categories)  # type: ignore[attr-defined]
            hard = np.argmax(keys, axis=-1)[..., None] == values
        return straight(hard.astype(distribution.dtype), soft) if self.hard else soft

    def _given_the_sample(self, distribution: Distribution, rng: np.random.Generator, shape: Shape, k: int) -> Value:
        z, l, total = _held(distribution, rng, shape), logits_of(distribution), 0
        for _ in range(k):
            u = noise_node(UNIT, rng, distribution.full_shape(shape), distribution.dtype)
            if isinstance(distribution, Bernoulli):
                total = total + sigmoid(straight(hidden(l, 2 * z - 1, u)[0], l) / self.temperature)
            else:
                total = total + softmax(straight(keys(l, z, u)[0], l) / self.temperature, axis=-1)
        return straight(z, total / k)


def _held(distribution: Distribution, rng: np.random.Generator, shape: Shape) -> Value:
    """The discrete sample, which no gradient passes."""
    return place(Site(distribution, Accounted(), rng, shape, None))
