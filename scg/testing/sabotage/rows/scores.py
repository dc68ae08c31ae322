"""Rows of the score function, mistaken."""

from functools import partial

from scg import estimators
from scg.estimators import ScoreFunction
from scg.testing.sabotage import programs, scores
from scg.testing.sabotage.rows.row import THREE, TWO, Row


def rows() -> list[Row]:
    """All, made anew."""
    plain = ScoreFunction()
    several = partial(ScoreFunction, samples=3)
    return [
        Row(
            "dropped score",
            programs.coins,
            TWO,
            scores.Constantly(),
            plain,
            "the sample is treated as a constant: only what depends on the parameters directly is differentiated",
            "what a framework without stochastic nodes does",
        ),
        Row(
            "flipped sign",
            programs.coins,
            TWO,
            scores.Flipped(),
            plain,
            "the score stands with the wrong sign: costs are minimized where rewards were maximized",
        ),
        Row(
            "missing downstream cost",
            programs.nested,
            TWO,
            scores.Immediate(programs.square),
            plain,
            "the score meets the cost of its own node only, not that of the later one which depends on it",
            "Schulman et al., 2015: all costs that the sample influences",
        ),
        Row(
            "upstream cost counted",
            programs.upstream,
            0.7,
            scores.Upstream(programs.squared_loc),
            plain,
            "a cost from before the sample multiplies its score without being held constant, and its"
            " derivative gets log p as a weight",
            "harmless in the mean only where the upstream cost is held",
        ),
        Row(
            "baseline with its own draw",
            programs.coins,
            TWO,
            ScoreFunction(baseline=scores.OwnDraw()),
            ScoreFunction(baseline=estimators.Constant(0.5)),
            "the baseline is predicted from the sample that it stands against",
        ),
        Row(
            "leave-one-out over n",
            programs.coins,
            TWO,
            several(baseline=scores.OverN()),
            several(baseline=estimators.LeaveOneOut()),
            "the baseline is the mean of all n costs, the sample's own among them, which is the leave-one-out estimate"
            " divided by n in place of n - 1",
            "found in published implementations, and the advantage of policy losses with groups",
        ),
        Row(
            "moving average with the current cost",
            programs.coins,
            TWO,
            ScoreFunction(baseline=scores.Folded(0.8)),
            ScoreFunction(baseline=estimators.MovingAverage(0.8)),
            "the moving average takes in the current cost before it is used, which shrinks the gradient by the decay",
            "found in published implementations",
        ),
        Row(
            "optimal baseline fitted on its own draws",
            programs.coins,
            TWO,
            several(baseline=scores.FittedHere()),
            several(baseline=estimators.Optimal()),
            "the coefficient that minimizes the variance is estimated from the samples that it is applied to",
        ),
        Row(
            "standardized costs",
            programs.coins,
            TWO,
            scores.Standardized(3),
            several(baseline=estimators.LeaveOneOut()),
            "costs are divided by their standard deviation over the samples as well as centred",
            "group-normalized advantages",
        ),
        Row(
            "clipped score",
            programs.coins,
            TWO,
            scores.Clipped(),
            plain,
            "scores are clipped, which cuts the rare ones that make the mean right",
        ),
        Row(
            "stale sample",
            programs.coins,
            TWO,
            scores.Stale(),
            plain,
            "the cost was computed at an older draw than the score",
        ),
        Row(
            "wrong normalizer",
            programs.faces,
            THREE,
            scores.Unnormalized(),
            plain,
            "the log-probability is the logit alone: the normalizer, which depends on the parameters, is left out",
        ),
        Row(
            "summed over a broadcast axis",
            programs.coins,
            TWO,
            scores.Outer(),
            plain,
            "costs of shape (n, 1) met log-probabilities of shape (n,), and the mean went over n x n products",
            "the silent broadcast of array libraries",
        ),
        Row(
            "minibatch factor missing",
            programs.coins,
            [0.4, -0.6, 0.2, 0.1],
            scores.Subsampled(2),
            scores.Subsampled(2, scaled=True),
            "scores of a drawn subset stand for those of all elements without the factor n / size",
        ),
        Row(
            "shared seed",
            programs.pair,
            [0.4, 0.4],
            scores.OneSeed(),
            plain,
            "draws that should be independent are made from the same seed, so that they are equal",
        ),
        Row(
            "score on a pathwise draw",
            programs.wave,
            1.0,
            scores.OnThePath(along=False),
            estimators.Reparameterized(),
            "the sample moves with its parameters and its score is counted as well: the gradient twice",
        ),
        Row(
            "score along the path",
            programs.scale,
            1.5,
            scores.OnThePath(along=True),
            estimators.Reparameterized(),
            "log p of a moving sample is differentiated through the sample too, and added to the pathwise"
            " gradient: 1.5 for 3",
        ),
        Row(
            "score on a moving support",
            programs.interval,
            [-1.0, 2.0],
            scores.FixedEnds(),
            estimators.Reparameterized(),
            "the score function of a uniform distribution misses what its ends contribute: (1/3, -1/3) for (0, 1)",
        ),
        Row(
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
