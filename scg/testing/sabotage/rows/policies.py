"""Rows of losses of policies, as training code has them, mistaken."""

from scg.estimators import ScoreFunction
from scg.testing.sabotage import policies, programs
from scg.testing.sabotage.rows.row import TABLE, THREE, Row


def rows() -> list[Row]:
    """All, made anew."""
    plain = ScoreFunction()
    return [
        Row(
            "sequence ratio over every token",
            programs.tokens,
            TABLE,
            policies.OffPolicy(broadcast=True),
            policies.OffPolicy(broadcast=False),
            "the importance ratio of a sequence is broadcast over its tokens' terms and added up once for each",
            "found in training code of language models",
        ),
        Row(
            "kept mass left out",
            programs.tokens,
            TABLE,
            policies.Kept(),
            plain,
            "tokens come from the likeliest ones only, and their ratios are those of the whole policy",
            "top-p sampling in training code of language models",
        ),
        Row(
            "penalty through the sampled log-probability",
            programs.penalized,
            THREE,
            policies.Live(programs.penalty),
            plain,
            "the penalty log p - log q of a sample is part of its advantage and is differentiated there",
            "found in training code of language models",
        ),
        Row(
            "advantage not held",
            programs.faces,
            THREE,
            policies.Live(programs.advantage),
            plain,
            "the baseline of the advantage depends on the parameters and is differentiated with the score",
            "found in training code of language models",
        ),
        Row(
            "temperature twice",
            programs.cooled,
            THREE,
            policies.TwiceCooled(0.5),
            plain,
            "logits are divided by the temperature for the samples, and once more for their log-probabilities",
            "found in training code of language models",
        ),
    ]
