"""The table of saboteurs."""

from scg.testing.sabotage.rows import measures, methods, objectives, policies, samples, scores
from scg.testing.sabotage.rows.row import Row


def rows() -> list[Row]:
    """All, made anew."""
    return [row for part in (scores, methods, measures, policies, samples, objectives) for row in part.rows()]
