"""Wrong score functions and baselines. Right is d/dt E[f(z)] = E[(F - b) d/dt log p(z; t)], b independent
of z."""

from collections.abc import Callable
from typing import final

import numpy as np

from scg.core.aliases import Operand, Result, Shape
from scg.core.node import Numeric, Value
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.subset import UniformSubset
from scg.estimators import Baseline, Reparameterized
from scg.estimators.baselines import squared_score
from scg.estimators.tools import constant, logits_of, sampled
from scg.primitives.layout import stop_gradient
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.formulas import box, first_order, score
from scg.stochastic.sites import Site, place
from scg.stochastic.surrogate import Downstream


class _Score(Estimator):
    """sum factor d log p: what stands in the place of the cost-to-go is for the subclass to say."""

    def expand(self, down: Downstream) -> Value | None:
        return np.sum(first_order(score(down.node), self.factor(down))) if down.influences else None

    def factor(self, down: Downstream) -> Value:
        return down.now()


@final
class Constantly(Estimator):
    """The sample counts as a constant."""


@final
class Flipped(_Score):
    """-F d log p."""

    def factor(self, down: Downstream) -> Value:
        return -down.now()


@final
class Immediate(_Score):
    """c(z) d log p with the cost at once only, not with what later samples cost."""

    def __init__(self, cost: Callable[[Value], Value]):
        self.cost = cost

    def factor(self, down: Downstream) -> Value:
        return self.cost(constant(down, down.node))


@final
class Upstream(Estimator):
    """d (log p (F + U)) with F held and the upstream cost U not: the extra log p dU has not the mean zero that U d log
    p has."""

    def __init__(self, upstream: Callable[[Value], Value]):
        self.upstream = upstream

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        loss = score(down.node) * self.upstream(down.distribution)
        return np.sum(first_order(score(down.node), down.now())) + np.sum(loss - stop_gradient(loss))


@final
class Clipped(Estimator):
    """F times the score of a coin's logit, b - p, cut to within 1/4."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        s = np.clip(constant(down, down.node) - constant(down, down.distribution.mean), -0.25, 0.25)
        return np.sum(first_order(np.broadcast_to(logits_of(down.distribution), down.shape), down.now() * s))


@final
class Standardized(Estimator):
    """((F - mean F) / std F) d log p over n samples."""

    def __init__(self, samples: int):
        self.samples = samples

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        draws = down.with_others(self.samples - 1)
        f = down.at(draws)
        centred = f - np.mean(f, axis=0, keepdims=True)
        deviation = np.sqrt(np.mean(centred * centred, axis=0, keepdims=True) + 1e-12)
        return np.sum(
            first_order(down.distribution.log_prob(stop_gradient(draws)), centred / deviation / (self.samples - 1))
        )


@final
class Stale(Estimator):
    """F(z) d log p(z'): the cost is that of an older draw than the score."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        fresh = down.with_others(1)[1]
        return np.sum(first_order(down.distribution.log_prob(stop_gradient(fresh)), down.now()))


@final
class Unnormalized(Estimator):
    """F d l_z for the score F d (l_z - log sum_k exp(l_k)) of a one-hot sample."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        return np.sum(first_order(np.sum(constant(down, down.node) * down.distribution.logits, axis=-1), down.now()))


@final
class Outer(Estimator):
    """mean_ij n F_i d log p_j: costs (n, 1) met log-probabilities (n,), and the n x n products were averaged."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        f, s = down.now()[..., :, None], score(down.node)[..., None, :]
        return np.sum(first_order(s, f)) / down.shape[-1]


@final
class Subsampled(Estimator):
    """The scores of ``size`` of n elements, drawn anew, without the factor n / size (with it where ``scaled``)."""

    def __init__(self, size: int, scaled: bool = False):
        self.size, self.scaled = size, scaled

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        n = down.shape[-1]
        rows = constant(down, sampled(down, UniformSubset(n, self.size)))
        chosen = np.sum(rows[:, None] == np.arange(n), axis=0)
        return np.sum(first_order(score(down.node), down.now() * chosen * (n / self.size if self.scaled else 1.0)))


@final
class OneSeed(_Score):
    """Coins of one bias that are all tossed from the same seed: what should be independent is the same."""

    def draw(self, distribution: Operand, rng: np.random.Generator, shape: Shape) -> Result:
        one = Bernoulli(logits=distribution.logits[..., :1])
        return np.broadcast_to(place(Site(one, Accounted(), rng, shape, None)), distribution.full_shape(shape))


@final
class OnThePath(Estimator):
    """A pathwise sample whose score is counted as well; with ``along`` the score of the moving draw, d/dt log p(z(t);
    t)."""

    def __init__(self, along: bool):
        self.along = along

    def draw(self, distribution: Operand, rng: np.random.Generator, shape: tuple[int, ...]) -> Value:
        return Reparameterized().draw(distribution, rng, shape)

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        z = down.node if self.along else stop_gradient(down.node)
        return np.sum(first_order(down.distribution.log_prob(z), down.now()))


@final
class FixedEnds(_Score):
    """The score function on a support that moves, which the package's own refuses."""


@final
class FirstOrderOnly(Estimator):
    """(log p - stop_gradient(log p)) stop_gradient(F): right once; differentiated twice it lacks (d log p)^2 F and d
    log p dF."""

    second_derivatives = True

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        s, f = score(down.node), down.now()
        return np.sum((s - stop_gradient(s)) * stop_gradient(f)) if down.graph else np.sum(first_order(s, f))


@final
class AnyOrder(Estimator):
    """(box - 1) F, which is what that should be."""

    second_derivatives = True

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        return (
            np.sum((box(score(down.node)) - 1) * down.now())
            if down.graph
            else np.sum(first_order(score(down.node), down.now()))
        )


@final
class OwnDraw(Baseline):
    """b = z / 2: a prediction of the cost from the sample itself."""

    def value(self, down: Downstream) -> Numeric:
        return 0.5 * constant(down, down.node)


@final
class OverN(Baseline):
    """The mean of all n costs, the sample's own among them: the leave-one-out estimate times (n - 1) / n."""

    def value(self, down: Downstream) -> Numeric:
        return np.mean(down.now(), axis=down.site.replicate_axes, keepdims=True)

    def of_samples(self, f: Value, draws: Value, down: Downstream) -> Numeric:
        return np.mean(f, axis=0, keepdims=True)


@final
class Folded(Baseline):
    """decay a + (1 - decay) F: the moving average after it has taken in the cost that it stands against; a = 0 so
    far."""

    def __init__(self, decay: float):
        self.decay = decay

    def value(self, down: Downstream) -> Numeric:
        return (1 - self.decay) * down.now()


@final
class FittedHere(Baseline):
    """sum F s^2 / sum s^2 over all samples, those that it stands against among them."""

    def value(self, down: Downstream) -> Numeric:
        return 0.0

    def of_samples(self, f: Value, draws: Value, down: Downstream) -> Numeric:
        square = stop_gradient(squared_score(down, stop_gradient(draws), 1))
        return np.sum(f * square, axis=0, keepdims=True) / np.sum(square, axis=0, keepdims=True)
