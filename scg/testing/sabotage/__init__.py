"""Saboteurs: deliberately wrong gradient estimators, each on a graph where its mistake matters, for tests of what
should catch them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np

from scg import estimators
from scg.core.node import Value
from scg.core.operands import frozen
from scg.distributions import Bernoulli, Normal, OneHotCategorical, Uniform
from scg.estimators import ScoreFunction
from scg.special import logsumexp
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph, trace
from scg.stochastic.sites import sample
from scg.testing.sabotage import elsewhere as away
from scg.testing.sabotage import scores
from scg.transforms import grad

CostBy = Callable[[Value, np.random.Generator, Estimator], Value]


@final
@dataclass(frozen=True, eq=False)
class Saboteur:
    """A program with a wrong estimator.

        for saboteur in scg.testing.saboteurs():
            with pytest.raises(AssertionError, match="biased"):
                scg.testing.assert_unbiased(saboteur.graph(), rng=rng)

    ``mistake``  what is wrong, in a sentence; ``source``, where it is known from
    ``cost``     the program, a function of (theta, rng), with the wrong ``estimator``; ``graph()`` is its graph at
                 ``theta``
    ``twin()``   the same graph with the estimator that is ``right``: it must pass where the saboteur fails
    """

    name: str
    mistake: str
    program: CostBy
    theta: np.ndarray
    estimator: Estimator
    right: Estimator
    source: str = ""

    def cost(self, theta: Value, rng: np.random.Generator) -> Value:
        """The cost, drawn with the wrong estimator."""
        return self.program(theta, rng, self.estimator)

    def graph(self) -> Graph:
        """The graph with the wrong estimator."""
        return self._traced(self.estimator)

    def twin(self) -> Graph:
        """The graph with the right one."""
        return self._traced(self.right)

    def _traced(self, estimator: Estimator) -> Graph:
        return trace(self.program, self.theta.copy(), rng=np.random.default_rng(0), estimator=estimator)

    def __str__(self) -> str:
        cost = (self.program.__doc__ or self.program.__name__).rstrip(".")
        rows = [
            ("known from", self.source),
            ("the estimator", self.estimator),
            ("right is", self.right),
            ("cost", cost),
            ("at", self.theta.tolist()),
        ]
        lines = [f"  {what:<12}{_FUNCTION.sub(_called, str(text))}" for what, text in rows if text != ""]
        return "\n".join([f"{self.name}: {self.mistake}", *lines])


_FUNCTION, _called = re.compile("<function _?([a-z_]+) at 0x[0-9a-f]+>"), r"\1"


def saboteurs() -> tuple[Saboteur, ...]:
    """All of them, made anew: ``assert_unbiased`` must reject each, for every seed, and pass its twin."""
    return tuple(
        [
            Saboteur(name, what, program, frozen(np.array(at)), wrong, right, source)
            for name, program, at, wrong, right, what, source in _rows()
        ]
    )


def _rows() -> list[tuple[str, CostBy, list[float] | float, Estimator, Estimator, str, str]]:
    """Name, program, parameters, the wrong estimator, the right one, the mistake, its source."""
    plain, every = ScoreFunction(), estimators.Enumerate()
    several = partial(ScoreFunction, samples=3)
    return [
        (
            "dropped score",
            _coins,
            _TWO,
            scores.Constantly(),
            plain,
            "the sample is treated as a constant: only what depends on the parameters directly is differentiated",
            "what a framework without stochastic nodes does",
        ),
        (
            "flipped sign",
            _coins,
            _TWO,
            scores.Flipped(),
            plain,
            "the score stands with the wrong sign: costs are minimized where rewards were maximized",
            "",
        ),
        (
            "missing downstream cost",
            _nested,
            _TWO,
            scores.Immediate(_square),
            plain,
            "the score meets the cost of its own node only, not that of the later one which depends on it",
            "Schulman et al., 2015: all costs that the sample influences",
        ),
        (
            "upstream cost counted",
            _upstream,
            0.7,
            scores.Upstream(_squared_loc),
            plain,
            "a cost from before the sample multiplies its score without being held constant, and its"
            " derivative gets log p as a weight",
            "harmless in the mean only where the upstream cost is held",
        ),
        (
            "baseline with its own draw",
            _coins,
            _TWO,
            ScoreFunction(baseline=scores.OwnDraw()),
            ScoreFunction(baseline=estimators.Constant(0.5)),
            "the baseline is predicted from the sample that it stands against",
            "",
        ),
        (
            "leave-one-out over n",
            _coins,
            _TWO,
            several(baseline=scores.OverN()),
            several(baseline=estimators.LeaveOneOut()),
            "the baseline is the mean of all n costs, which is the leave-one-out estimate divided by n in"
            " place of n - 1",
            "found in published implementations",
        ),
        (
            "moving average with the current cost",
            _coins,
            _TWO,
            ScoreFunction(baseline=scores.Folded(0.8)),
            ScoreFunction(baseline=estimators.MovingAverage(0.8)),
            "the moving average takes in the current cost before it is used, which shrinks the gradient by the decay",
            "found in published implementations",
        ),
        (
            "optimal baseline fitted on its own draws",
            _coins,
            _TWO,
            several(baseline=scores.FittedHere()),
            several(baseline=estimators.Optimal()),
            "the coefficient that minimizes the variance is estimated from the samples that it is applied to",
            "",
        ),
        (
            "standardized costs",
            _coins,
            _TWO,
            scores.Standardized(3),
            several(baseline=estimators.LeaveOneOut()),
            "costs are divided by their standard deviation over the samples as well as centred",
            "group-normalized advantages",
        ),
        (
            "clipped score",
            _coins,
            _TWO,
            scores.Clipped(),
            plain,
            "scores are clipped, which cuts the rare ones that make the mean right",
            "",
        ),
        (
            "stale sample",
            _coins,
            _TWO,
            scores.Stale(),
            plain,
            "the cost was computed at an older draw than the score",
            "",
        ),
        (
            "wrong normalizer",
            _faces,
            _THREE,
            scores.Unnormalized(),
            plain,
            "the log-probability is the logit alone: the normalizer, which depends on the parameters, is left out",
            "",
        ),
        (
            "summed over a broadcast axis",
            _coins,
            _TWO,
            scores.Outer(),
            plain,
            "costs of shape (n, 1) met log-probabilities of shape (n,), and the mean went over n x n products",
            "the silent broadcast of array libraries",
        ),
        (
            "minibatch factor missing",
            _coins,
            [0.4, -0.6, 0.2, 0.1],
            scores.Subsampled(2),
            scores.Subsampled(2, scaled=True),
            "scores of a drawn subset stand for those of all elements without the factor n / size",
            "",
        ),
        (
            "shared seed",
            _pair,
            [0.4, 0.4],
            scores.OneSeed(),
            plain,
            "draws that should be independent are made from the same seed, so that they are equal",
            "",
        ),
        (
            "score on a pathwise draw",
            _wave,
            1.0,
            scores.OnThePath(along=False),
            estimators.Reparameterized(),
            "the sample moves with its parameters and its score is counted as well: the gradient twice",
            "",
        ),
        (
            "score along the path",
            _scale,
            1.5,
            scores.OnThePath(along=True),
            estimators.Reparameterized(),
            "log p of a moving sample is differentiated through the sample too, and added to the pathwise"
            " gradient: 1.5 for 3",
            "",
        ),
        (
            "score on a moving support",
            _interval,
            [-1.0, 2.0],
            scores.FixedEnds(),
            estimators.Reparameterized(),
            "the score function of a uniform distribution misses what its ends contribute: (1/3, -1/3) for (0, 1)",
            "",
        ),
        (
            "first-order surrogate at second order",
            _curvature,
            0.4,
            scores.FirstOrderOnly(),
            scores.AnyOrder(),
            "the surrogate (log p) stop_gradient(F) is differentiated twice: right once, and then it lacks"
            " (d log p)^2 F",
            "Foerster et al., 2018",
        ),
        (
            "straight-through called unbiased",
            _coins,
            _TWO,
            away.Straight(),
            every,
            "a discrete sample passes the gradient as if it were its own mean",
            "Bengio et al., 2013, who call it biased",
        ),
        (
            "temperature left in",
            _coins,
            _TWO,
            away.Warm(0.5),
            every,
            "a relaxed draw, at a temperature above zero, stands for the discrete one",
            "Jang et al., 2017; Maddison et al., 2017",
        ),
        (
            "enumeration that samples when batched",
            _coins,
            _TWO,
            away.SampledEnumeration(),
            every,
            "a batch of samples gets the term of one drawn value, not divided by its probability, in place of the sum",
            "found in published implementations",
        ),
        (
            "set treated as with replacement",
            _faces,
            _THREE,
            away.AsWithReplacement(2),
            estimators.UnorderedSet(2),
            "distinct values are averaged as if they had been drawn independently, though likely ones come"
            " too rarely then",
            "Kool et al., 2020",
        ),
        (
            "importance weights left out",
            _faces,
            _THREE,
            away.Proposed(2, "left out"),
            away.Proposed(2, "right"),
            "values come from another distribution than the one whose mean is wanted, and nothing makes up for it",
            "",
        ),
        (
            "self-normalized weights",
            _faces,
            _THREE,
            away.Proposed(2, "self-normalized"),
            away.Proposed(2, "right"),
            "importance weights are divided by their own sum: right only for endlessly many samples",
            "",
        ),
        (
            "measure-valued without its scale",
            _wide,
            0.5,
            away.UnscaledMeasure(),
            estimators.MeasureValued(),
            "the constant of the decomposition lacks 1/scale",
            "",
        ),
        (
            "control variate without its correction",
            _coins,
            _TWO,
            away.Uncorrected(),
            estimators.MuProp(),
            "MuProp's linear part is taken away from the cost and its mean is not put back",
            "Gu et al., 2016",
        ),
        (
            "antithetic pair not halved",
            _coins,
            _TWO,
            away.Antithetic(factor=1.0),
            estimators.DisARM(),
            "both members of a DisARM pair are counted as a whole",
            "",
        ),
        (
            "antithetic pair at the wrong tail",
            _coins,
            _TWO,
            away.Antithetic(absolute=False),
            estimators.DisARM(),
            "DisARM's sigma(|l|) without the absolute value: right for positive logits only",
            "",
        ),
        (
            "wrong conditional noise",
            _coin,
            0.0,
            away.Controlled("noise", temperature=1.0),
            estimators.REBAR(temperature=1.0),
            "REBAR's draw of z given b is made by log p + log1p(p) where logit p = log p - log1p(-p)"
            " belongs: 0.055 for 0.025",
            "found in published implementations",
        ),
        (
            "control variate detached",
            _coins,
            _TWO,
            away.Controlled("detached"),
            estimators.REBAR(),
            "REBAR's relaxed costs are taken away and their derivatives are not put back",
            "",
        ),
        (
            "one relaxation for two",
            _coins,
            _TWO,
            away.Controlled("one"),
            estimators.REBAR(),
            "the relaxed sample serves as the one given the discrete sample too, as if it had no part in the score",
            "",
        ),
        (
            "weights counted once",
            _bound,
            0.3,
            away.Reweighted(_log_p, 1, dropped=True),
            away.Reweighted(_log_p, 2, dropped=True),
            "the score of the guide is dropped from the gradient of a K-draw bound, and its weights are not squared",
            "Tucker et al., 2019: biased for K > 1",
        ),
        (
            "squared weights with the score kept",
            _bound,
            0.3,
            away.Reweighted(_log_p, 2, dropped=False),
            away.Reweighted(_log_p, 1, dropped=False),
            "the weights of a K-draw bound are squared as in the doubly reparameterized gradient, and the"
            " score is kept",
            "Tucker et al., 2019, rightly",
        ),
    ]


_TWO, _THREE = [0.4, -0.6], [0.5, -0.3, 0.1]


def _square(x: Value) -> Value:
    return (x - 0.2) ** 2


def _coins(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """Separate costs of a few coins."""
    b = sample(Bernoulli(logits=t), estimator, rng=rng, name="z")
    return np.mean((b + 0.5) ** 2 * np.arange(1.0, 1 + t.size) + 0.3 * t * b)


def _coin(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """One coin, near to where costs are equal."""
    return (sample(Bernoulli(logits=t), estimator, rng=rng, name="z") - 0.45) ** 2


def _pair(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The product of two coins."""
    b = sample(Bernoulli(logits=t), estimator, rng=rng, name="z")
    return (b[0] - 0.2) * (b[1] + 1)


def _nested(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A coin whose outcome sets the odds of the next."""
    x = sample(Bernoulli(logits=t[0]), estimator, rng=rng, name="z")
    y = sample(Bernoulli(logits=t[1] + 2 * x), ScoreFunction(), rng=rng, name="y")
    return _square(x) + 2 * y


def _squared_loc(distribution: Any) -> Value:
    return distribution.loc**2


def _upstream(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A cost of the place, and then one of where a sample around it falls."""
    return t**2 + _square(sample(Normal(t, 1.0), estimator, rng=rng, name="z"))


def _faces(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The price of one of three faces."""
    z = sample(OneHotCategorical(logits=t), estimator, rng=rng, name="z")
    return np.sum(z * np.array([1.0, 3.0, 0.5]))


def _scale(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[z^2] = t^2."""
    return sample(Normal(0.0, t), estimator, rng=rng, name="z") ** 2


def _wave(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[cos z] = exp(-t^2 / 2)."""
    return np.cos(sample(Normal(0.0, t), estimator, rng=rng, name="z"))


def _wide(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[(z + 1)^2] under N(t, 1.5)."""
    return (sample(Normal(t, 1.5), estimator, rng=rng, name="z") + 1) ** 2


def _interval(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[z^2] between t[0] and t[1]."""
    return sample(Uniform(t[0], t[1]), estimator, rng=rng, name="z") ** 2


def _curvature(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The derivative of a cost, so that its own derivative is the second one."""

    def cost(t: Value, rng: np.random.Generator) -> Value:
        return _square(sample(Bernoulli(logits=t), estimator, rng=rng, name="z")) * t

    return grad(cost)(t, rng=rng)


def _log_p(z: Value) -> Value:
    return Normal(0.0, 1.0).log_prob(z)


def _bound(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """Two samples' bound on log p = 0, with a guide beside the mark."""
    guide = Normal(t, 1.2)
    z = sample(guide, estimator, rng=rng, shape=(2,), name="z")
    return logsumexp(_log_p(z) - guide.log_prob(z), axis=0)
