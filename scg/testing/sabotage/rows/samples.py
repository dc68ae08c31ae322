"""Rows of estimators that compare several samples, mistaken."""

from scg import estimators
from scg.testing.sabotage import partners, programs, several
from scg.testing.sabotage.rows.row import THREE, TWO, Row


def rows() -> list[Row]:
    """All, made anew."""
    return [
        Row(
            "coupled pair without its ratio",
            programs.coins,
            TWO,
            several.UnweightedPair(),
            estimators.CoupledPairs(2),
            "two samples that avoid one another are compared as if they were independent",
            "Dimitriev and Zhou, 2021, rightly",
        ),
        Row(
            "step backwards",
            programs.dice,
            THREE,
            several.StepBack(),
            estimators.StochasticDerivative(),
            "the cost at a value is compared with that one step before it, and not one step further",
        ),
        Row(
            "slope taken off and not put back",
            programs.nested,
            TWO,
            several.Linear(own=False),
            estimators.DoubleControlVariate(),
            "the linear part of the cost is taken off the samples, and what it adds to the mean is forgotten",
            "Titsias and Shi, 2022, rightly",
        ),
        Row(
            "slope at the sample itself",
            programs.steep,
            TWO,
            several.Linear(own=True),
            estimators.DoubleControlVariate(),
            "the slope that multiplies a sample is that at this sample, which depends on it, and not at another one",
            "Titsias and Shi, 2022, rightly",
        ),
        Row(
            "last of a chain summed out alone",
            programs.steps,
            TWO,
            several.LastAlone(),
            estimators.Marginalize(),
            "a sample is summed out given those before it, which have no estimator of their own",
        ),
        Row(
            "pair out of three with the ratio of two",
            programs.coins,
            TWO,
            partners.RatioOfTwo(3),
            estimators.CoupledPairs(2),
            "two of three samples that avoid one another are weighted as if there were only these two",
            "Dimitriev and Zhou, 2021, rightly",
        ),
        Row(
            "one step for all",
            programs.pair,
            TWO,
            partners.OneStep(),
            estimators.StochasticDerivative(prune=True),
            "one element, drawn uniformly, takes its step, and what it gives is not divided by its probability",
            "Arya et al., 2022, rightly",
        ),
        Row(
            "all trials and one more",
            programs.trials,
            TWO,
            partners.AllTrials(),
            estimators.MeasureValued(),
            "one more success is compared with none more beside all trials, and not beside all but one",
        ),
        Row(
            "Stein operator by a plain mean",
            programs.steep,
            TWO,
            several.Stein("uniform"),
            estimators.RODEO(),
            "the values of an element are averaged alike, not by their probabilities: what is subtracted has a mean",
            "Shi et al., 2022, rightly",
        ),
        Row(
            "surrogate of the sample itself",
            programs.steep,
            TWO,
            several.Stein("own"),
            estimators.RODEO(),
            "the surrogate that is averaged over the values of a sample is made of this sample's own slope",
            "Shi et al., 2022, rightly",
        ),
    ]
