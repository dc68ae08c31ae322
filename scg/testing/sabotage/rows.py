"""The table of saboteurs: name, program, parameters, the wrong estimator, the right one, the mistake, its source."""

from collections.abc import Callable
from functools import partial

import numpy as np

from scg import estimators
from scg.core.node import Value
from scg.estimators import ScoreFunction
from scg.stochastic.estimator import Estimator
from scg.testing.sabotage import elsewhere as away
from scg.testing.sabotage import partners, policies, programs, scores
from scg.testing.sabotage import several as several_

CostBy = Callable[[Value, np.random.Generator, Estimator], Value]
Row = tuple[str, CostBy, list[list[float]] | list[float] | float, Estimator, Estimator, str, str]

_TWO, _THREE = [0.4, -0.6], [0.5, -0.3, 0.1]
_TABLE = [[0.5, -0.3, 0.1], [-0.4, 0.2, 0.3]]


def rows() -> list[Row]:
    """All, made anew."""
    return [*of_scores(), *of_other_methods(), *of_policies(), *of_several_samples()]


def of_scores() -> list[Row]:
    """The score function, mistaken."""
    plain = ScoreFunction()
    several = partial(ScoreFunction, samples=3)
    return [
        (
            "dropped score",
            programs.coins,
            _TWO,
            scores.Constantly(),
            plain,
            "the sample is treated as a constant: only what depends on the parameters directly is differentiated",
            "what a framework without stochastic nodes does",
        ),
        (
            "flipped sign",
            programs.coins,
            _TWO,
            scores.Flipped(),
            plain,
            "the score stands with the wrong sign: costs are minimized where rewards were maximized",
            "",
        ),
        (
            "missing downstream cost",
            programs.nested,
            _TWO,
            scores.Immediate(programs.square),
            plain,
            "the score meets the cost of its own node only, not that of the later one which depends on it",
            "Schulman et al., 2015: all costs that the sample influences",
        ),
        (
            "upstream cost counted",
            programs.upstream,
            0.7,
            scores.Upstream(programs.squared_loc),
            plain,
            "a cost from before the sample multiplies its score without being held constant, and its"
            " derivative gets log p as a weight",
            "harmless in the mean only where the upstream cost is held",
        ),
        (
            "baseline with its own draw",
            programs.coins,
            _TWO,
            ScoreFunction(baseline=scores.OwnDraw()),
            ScoreFunction(baseline=estimators.Constant(0.5)),
            "the baseline is predicted from the sample that it stands against",
            "",
        ),
        (
            "leave-one-out over n",
            programs.coins,
            _TWO,
            several(baseline=scores.OverN()),
            several(baseline=estimators.LeaveOneOut()),
            "the baseline is the mean of all n costs, the sample's own among them, which is the leave-one-out estimate"
            " divided by n in place of n - 1",
            "found in published implementations, and the advantage of policy losses with groups",
        ),
        (
            "moving average with the current cost",
            programs.coins,
            _TWO,
            ScoreFunction(baseline=scores.Folded(0.8)),
            ScoreFunction(baseline=estimators.MovingAverage(0.8)),
            "the moving average takes in the current cost before it is used, which shrinks the gradient by the decay",
            "found in published implementations",
        ),
        (
            "optimal baseline fitted on its own draws",
            programs.coins,
            _TWO,
            several(baseline=scores.FittedHere()),
            several(baseline=estimators.Optimal()),
            "the coefficient that minimizes the variance is estimated from the samples that it is applied to",
            "",
        ),
        (
            "standardized costs",
            programs.coins,
            _TWO,
            scores.Standardized(3),
            several(baseline=estimators.LeaveOneOut()),
            "costs are divided by their standard deviation over the samples as well as centred",
            "group-normalized advantages",
        ),
        (
            "clipped score",
            programs.coins,
            _TWO,
            scores.Clipped(),
            plain,
            "scores are clipped, which cuts the rare ones that make the mean right",
            "",
        ),
        (
            "stale sample",
            programs.coins,
            _TWO,
            scores.Stale(),
            plain,
            "the cost was computed at an older draw than the score",
            "",
        ),
        (
            "wrong normalizer",
            programs.faces,
            _THREE,
            scores.Unnormalized(),
            plain,
            "the log-probability is the logit alone: the normalizer, which depends on the parameters, is left out",
            "",
        ),
        (
            "summed over a broadcast axis",
            programs.coins,
            _TWO,
            scores.Outer(),
            plain,
            "costs of shape (n, 1) met log-probabilities of shape (n,), and the mean went over n x n products",
            "the silent broadcast of array libraries",
        ),
        (
            "minibatch factor missing",
            programs.coins,
            [0.4, -0.6, 0.2, 0.1],
            scores.Subsampled(2),
            scores.Subsampled(2, scaled=True),
            "scores of a drawn subset stand for those of all elements without the factor n / size",
            "",
        ),
        (
            "shared seed",
            programs.pair,
            [0.4, 0.4],
            scores.OneSeed(),
            plain,
            "draws that should be independent are made from the same seed, so that they are equal",
            "",
        ),
        (
            "score on a pathwise draw",
            programs.wave,
            1.0,
            scores.OnThePath(along=False),
            estimators.Reparameterized(),
            "the sample moves with its parameters and its score is counted as well: the gradient twice",
            "",
        ),
        (
            "score along the path",
            programs.scale,
            1.5,
            scores.OnThePath(along=True),
            estimators.Reparameterized(),
            "log p of a moving sample is differentiated through the sample too, and added to the pathwise"
            " gradient: 1.5 for 3",
            "",
        ),
        (
            "score on a moving support",
            programs.interval,
            [-1.0, 2.0],
            scores.FixedEnds(),
            estimators.Reparameterized(),
            "the score function of a uniform distribution misses what its ends contribute: (1/3, -1/3) for (0, 1)",
            "",
        ),
        (
            "first-order surrogate at second order",
            programs.curvature,
            0.4,
            scores.FirstOrderOnly(),
            scores.AnyOrder(),
            "the surrogate (log p) stop_gradient(F) is differentiated twice: right once, and then it lacks"
            " (d log p)^2 F",
            "Foerster et al., 2018",
        ),
    ]


def of_other_methods() -> list[Row]:
    """Enumeration, relaxations, weights, measures and control variates, mistaken."""
    every = estimators.Enumerate()
    return [
        (
            "straight-through called unbiased",
            programs.coins,
            _TWO,
            away.Straight(),
            every,
            "a discrete sample passes the gradient as if it were its own mean",
            "Bengio et al., 2013, who call it biased",
        ),
        (
            "temperature left in",
            programs.coins,
            _TWO,
            away.Warm(0.5),
            every,
            "a relaxed draw, at a temperature above zero, stands for the discrete one",
            "Jang et al., 2017; Maddison et al., 2017",
        ),
        (
            "enumeration that samples when batched",
            programs.coins,
            _TWO,
            away.SampledEnumeration(),
            every,
            "a batch of samples gets the term of one drawn value, not divided by its probability, in place of the sum",
            "found in published implementations",
        ),
        (
            "set treated as with replacement",
            programs.faces,
            _THREE,
            away.AsWithReplacement(2),
            estimators.UnorderedSet(2),
            "distinct values are averaged as if they had been drawn independently, though likely ones come"
            " too rarely then",
            "Kool et al., 2020",
        ),
        (
            "importance weights left out",
            programs.faces,
            _THREE,
            away.Proposed(2, "left out"),
            away.Proposed(2, "right"),
            "values come from another distribution than the one whose mean is wanted, and nothing makes up for it",
            "",
        ),
        (
            "self-normalized weights",
            programs.faces,
            _THREE,
            away.Proposed(2, "self-normalized"),
            away.Proposed(2, "right"),
            "importance weights are divided by their own sum: right only for endlessly many samples",
            "",
        ),
        (
            "measure-valued without its scale",
            programs.wide,
            0.5,
            away.UnscaledMeasure(),
            estimators.MeasureValued(),
            "the constant of the decomposition lacks 1/scale",
            "",
        ),
        (
            "control variate without its correction",
            programs.coins,
            _TWO,
            away.Uncorrected(),
            estimators.MuProp(),
            "MuProp's linear part is taken away from the cost and its mean is not put back",
            "Gu et al., 2016",
        ),
        (
            "antithetic pair not halved",
            programs.coins,
            _TWO,
            away.Antithetic(factor=1.0),
            estimators.DisARM(),
            "both members of a DisARM pair are counted as a whole",
            "",
        ),
        (
            "antithetic pair at the wrong tail",
            programs.coins,
            _TWO,
            away.Antithetic(absolute=False),
            estimators.DisARM(),
            "DisARM's sigma(|l|) without the absolute value: right for positive logits only",
            "",
        ),
        (
            "wrong conditional noise",
            programs.coin,
            0.0,
            away.Controlled("noise", temperature=1.0),
            estimators.REBAR(temperature=1.0),
            "REBAR's draw of z given b is made by log p + log1p(p) where logit p = log p - log1p(-p)"
            " belongs: 0.055 for 0.025",
            "found in published implementations",
        ),
        (
            "control variate detached",
            programs.coins,
            _TWO,
            away.Controlled("detached"),
            estimators.REBAR(),
            "REBAR's relaxed costs are taken away and their derivatives are not put back",
            "",
        ),
        (
            "one relaxation for two",
            programs.coins,
            _TWO,
            away.Controlled("one"),
            estimators.REBAR(),
            "the relaxed sample serves as the one given the discrete sample too, as if it had no part in the score",
            "",
        ),
        (
            "weights counted once",
            programs.bound,
            0.3,
            away.Reweighted(programs.log_p, 1, dropped=True),
            away.Reweighted(programs.log_p, 2, dropped=True),
            "the score of the guide is dropped from the gradient of a K-draw bound, and its weights are not squared",
            "Tucker et al., 2019: biased for K > 1",
        ),
        (
            "squared weights with the score kept",
            programs.bound,
            0.3,
            away.Reweighted(programs.log_p, 2, dropped=False),
            away.Reweighted(programs.log_p, 1, dropped=False),
            "the weights of a K-draw bound are squared as in the doubly reparameterized gradient, and the"
            " score is kept",
            "Tucker et al., 2019, rightly",
        ),
    ]


def of_policies() -> list[Row]:
    """Losses of policies, as training code has them, mistaken."""
    plain = ScoreFunction()
    return [
        (
            "sequence ratio over every token",
            programs.tokens,
            _TABLE,
            policies.OffPolicy(broadcast=True),
            policies.OffPolicy(broadcast=False),
            "the importance ratio of a sequence is broadcast over its tokens' terms and added up once for each",
            "found in training code of language models",
        ),
        (
            "kept mass left out",
            programs.tokens,
            _TABLE,
            policies.Kept(),
            plain,
            "tokens come from the likeliest ones only, and their ratios are those of the whole policy",
            "top-p sampling in training code of language models",
        ),
        (
            "penalty through the sampled log-probability",
            programs.penalized,
            _THREE,
            policies.Live(programs.penalty),
            plain,
            "the penalty log p - log q of a sample is part of its advantage and is differentiated there",
            "found in training code of language models",
        ),
        (
            "advantage not held",
            programs.faces,
            _THREE,
            policies.Live(programs.advantage),
            plain,
            "the baseline of the advantage depends on the parameters and is differentiated with the score",
            "found in training code of language models",
        ),
        (
            "temperature twice",
            programs.cooled,
            _THREE,
            policies.TwiceCooled(0.5),
            plain,
            "logits are divided by the temperature for the samples, and once more for their log-probabilities",
            "found in training code of language models",
        ),
    ]


def of_several_samples() -> list[Row]:
    """Estimators that compare several samples, mistaken."""
    return [
        (
            "coupled pair without its ratio",
            programs.coins,
            _TWO,
            several_.UnweightedPair(),
            estimators.CoupledPairs(2),
            "two samples that avoid one another are compared as if they were independent",
            "Dimitriev and Zhou, 2021, rightly",
        ),
        (
            "step backwards",
            programs.dice,
            _THREE,
            several_.StepBack(),
            estimators.StochasticDerivative(),
            "the cost at a value is compared with that one step before it, and not one step further",
            "",
        ),
        (
            "slope taken off and not put back",
            programs.nested,
            _TWO,
            several_.Linear(own=False),
            estimators.DoubleControlVariate(),
            "the linear part of the cost is taken off the samples, and what it adds to the mean is forgotten",
            "Titsias and Shi, 2022, rightly",
        ),
        (
            "slope at the sample itself",
            programs.steep,
            _TWO,
            several_.Linear(own=True),
            estimators.DoubleControlVariate(),
            "the slope that multiplies a sample is that at this sample, which depends on it, and not at another one",
            "Titsias and Shi, 2022, rightly",
        ),
        (
            "last of a chain summed out alone",
            programs.steps,
            _TWO,
            several_.LastAlone(),
            estimators.Marginalize(),
            "a sample is summed out given those before it, which have no estimator of their own",
            "",
        ),
        (
            "pair out of three with the ratio of two",
            programs.coins,
            _TWO,
            partners.RatioOfTwo(3),
            estimators.CoupledPairs(2),
            "two of three samples that avoid one another are weighted as if there were only these two",
            "Dimitriev and Zhou, 2021, rightly",
        ),
        (
            "one step for all",
            programs.pair,
            _TWO,
            partners.OneStep(),
            estimators.StochasticDerivative(prune=True),
            "one element, drawn uniformly, takes its step, and what it gives is not divided by its probability",
            "Arya et al., 2022, rightly",
        ),
        (
            "all trials and one more",
            programs.trials,
            _TWO,
            partners.AllTrials(),
            estimators.MeasureValued(),
            "one more success is compared with none more beside all trials, and not beside all but one",
            "",
        ),
        (
            "Stein operator by a plain mean",
            programs.steep,
            _TWO,
            several_.Stein("uniform"),
            estimators.RODEO(),
            "the values of an element are averaged alike, not by their probabilities: what is subtracted has a mean",
            "Shi et al., 2022, rightly",
        ),
        (
            "surrogate of the sample itself",
            programs.steep,
            _TWO,
            several_.Stein("own"),
            estimators.RODEO(),
            "the surrogate that is averaged over the values of a sample is made of this sample's own slope",
            "Shi et al., 2022, rightly",
        ),
    ]
