"""Rows of enumeration, relaxations, weights, measures and control variates, mistaken."""

from scg import estimators
from scg.testing.sabotage import elsewhere as away
from scg.testing.sabotage import onehot, programs, several
from scg.testing.sabotage.rows.row import THREE, TWO, Row


def rows() -> list[Row]:
    """All, made anew."""
    every = estimators.Enumerate()
    return [
        Row(
            "straight-through called unbiased",
            programs.coins,
            TWO,
            away.Straight(),
            every,
            "a discrete sample passes the gradient as if it were its own mean",
            "Bengio et al., 2013, who call it biased",
        ),
        Row(
            "temperature left in",
            programs.coins,
            TWO,
            away.Warm(0.5),
            every,
            "a relaxed draw, at a temperature above zero, stands for the discrete one",
            "Jang et al., 2017; Maddison et al., 2017",
        ),
        Row(
            "enumeration that samples when batched",
            programs.coins,
            TWO,
            away.SampledEnumeration(),
            every,
            "a batch of samples gets the term of one drawn value, not divided by its probability, in place of the sum",
            "found in published implementations",
        ),
        Row(
            "set treated as with replacement",
            programs.faces,
            THREE,
            away.AsWithReplacement(2),
            estimators.UnorderedSet(2),
            "distinct values are averaged as if they had been drawn independently, though likely ones come"
            " too rarely then",
            "Kool et al., 2020",
        ),
        Row(
            "importance weights left out",
            programs.faces,
            THREE,
            away.Proposed(2, "left out"),
            away.Proposed(2, "right"),
            "values come from another distribution than the one whose mean is wanted, and nothing makes up for it",
        ),
        Row(
            "self-normalized weights",
            programs.faces,
            THREE,
            away.Proposed(2, "self-normalized"),
            away.Proposed(2, "right"),
            "importance weights are divided by their own sum: right only for endlessly many samples",
        ),
        Row(
            "measure-valued without its scale",
            programs.wide,
            0.5,
            away.UnscaledMeasure(),
            estimators.MeasureValued(),
            "the constant of the decomposition lacks 1/scale",
        ),
        Row(
            "control variate without its correction",
            programs.coins,
            TWO,
            away.Uncorrected(),
            estimators.MuProp(),
            "MuProp's linear part is taken away from the cost and its mean is not put back",
            "Gu et al., 2016",
        ),
        Row(
            "antithetic pair not halved",
            programs.coins,
            TWO,
            away.Antithetic(factor=1.0),
            estimators.DisARM(),
            "both members of a DisARM pair are counted as a whole",
        ),
        Row(
            "antithetic pair at the wrong tail",
            programs.coins,
            TWO,
            away.Antithetic(absolute=False),
            estimators.DisARM(),
            "DisARM's sigma(|l|) without the absolute value: right for positive logits only",
        ),
        Row(
            "wrong conditional noise",
            programs.coin,
            0.0,
            away.Controlled("noise", temperature=1.0),
            estimators.REBAR(temperature=1.0),
            "REBAR's draw of z given b is made by log p + log1p(p) where logit p = log p - log1p(-p)"
            " belongs: 0.055 for 0.025",
            "found in published implementations",
        ),
        Row(
            "control variate detached",
            programs.coins,
            TWO,
            away.Controlled("detached"),
            estimators.REBAR(),
            "REBAR's relaxed costs are taken away and their derivatives are not put back",
        ),
        Row(
            "one relaxation for two",
            programs.coins,
            TWO,
            away.Controlled("one"),
            estimators.REBAR(),
            "the relaxed sample serves as the one given the discrete sample too, as if it had no part in the score",
        ),
        Row(
            "one race for two",
            programs.two_faces,
            0.4,
            onehot.OneRace(),
            every,
            "the keys that decide a one-hot sample serve REBAR as those given the sample too",
            "Tucker et al., 2017, rightly",
        ),
        Row(
            "slope at the face itself",
            programs.two_faces,
            0.4,
            several.Linear(own=True),
            estimators.DoubleControlVariate(),
            "the slope that multiplies a one-hot sample is that at this sample, which depends on it",
            "Titsias and Shi, 2022, rightly",
        ),
        Row(
            "control variate without its correction, one-hot",
            programs.faces,
            THREE,
            away.Uncorrected(),
            estimators.MuProp(),
            "MuProp's linear part of the price of a face is taken away and its mean is not put back",
            "Gu et al., 2016",
        ),
        Row(
            "weights counted once",
            programs.bound,
            0.3,
            away.Reweighted(programs.log_p, 1, dropped=True),
            away.Reweighted(programs.log_p, 2, dropped=True),
            "the score of the guide is dropped from the gradient of a K-draw bound, and its weights are not squared",
            "Tucker et al., 2019: biased for K > 1",
        ),
        Row(
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
