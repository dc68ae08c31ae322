"""The table of saboteurs."""

from scg.testing.sabotage.rows import methods, objectives, policies, samples, scores
from scg.testing.sabotage.rows.row import Row


def rows() -> list[Row]:
    """All, made anew."""
    return [row for part in (scores, methods, policies, samples, objectives) for row in part.rows()]
