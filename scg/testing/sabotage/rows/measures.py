"""Rows of weak derivatives, mistaken."""

from scg import estimators
from scg.testing.sabotage import measures, programs
from scg.testing.sabotage.rows.row import Row


def rows() -> list[Row]:
    """All, made anew."""
    right = estimators.MeasureValued()
    return [
        Row(
            "sides swapped",
            programs.laplace,
            0.5,
            measures.Weak("loc", measures.left_for_right),
            right,
            "the cost to the right of the loc of a Laplace sample is taken from that to the left of it",
        ),
        Row(
            "same trials again",
            programs.geometric,
            0.4,
            measures.Weak("logits", measures.same_again),
            right,
            "a geometric sample is compared with twice itself, and not with itself and another one",
        ),
        Row(
            "constant of one success",
            programs.negative_binomial,
            0.4,
            measures.Weak("logits", measures.of_one_success),
            right,
            "the constant of a negative binomial sample is that of one success, and not of all of them",
        ),
        Row(
            "sum of two Weibull variables",
            programs.weibull,
            1.2,
            measures.Weak("scale", measures.sum_of_two),
            right,
            "the partner is a sum of two Weibull variables, and not the Weibull variable of a sum of two exponentials",
        ),
        Row(
            "lognormal partners without the scale",
            programs.lognormal,
            0.3,
            measures.Weak("loc", measures.without_scale),
            right,
            "the constant has the scale of log z, and the partners on both sides of its loc do not",
        ),
        Row(
            "Student partners without the degrees",
            programs.student,
            0.3,
            measures.Weak("loc", measures.without_degrees),
            right,
            "the partners on both sides of the loc lack the factor sqrt(df)",
        ),
    ]
