"""Saboteurs: deliberately wrong gradient estimators, each on a graph where its mistake matters, for tests of what
should catch them."""

import re
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.node import Value
from scg.core.operands import frozen
from scg.stochastic.graph import Graph, trace
from scg.testing.sabotage.rows import rows
from scg.testing.sabotage.rows.row import CostBy, Wrong


@final
@dataclass(frozen=True, eq=False)
class Saboteur:
    """A program with a wrong estimator.

        for saboteur in scg.testing.saboteurs():
            with pytest.raises(AssertionError, match="biased"):
                scg.testing.assert_unbiased(saboteur.graph(), rng=rng)

    ``mistake``  what is wrong, in a sentence; ``source``, where it is known from
    ``cost``     the program, a function of (theta, rng), with the wrong ``estimator``, or objective; ``graph()`` is its
                 graph at ``theta``
    ``twin()``   the same graph with the estimator that is ``right``: it must pass where the saboteur fails
    """

    name: str
    mistake: str
    program: CostBy
    theta: np.ndarray
    estimator: Wrong
    right: Wrong
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

    def _traced(self, estimator: Wrong) -> Graph:
        return trace(self.program, self.theta.copy(), rng=np.random.default_rng(0), estimator=estimator)

    def __str__(self) -> str:
        cost = (self.program.__doc__ or self.program.__name__).rstrip(".")
        facts = [
            ("known from", self.source),
            ("the estimator", self.estimator),
            ("right is", self.right),
            ("cost", cost),
            ("at", self.theta.tolist()),
        ]
        lines = [f"  {what:<15}{_FUNCTION.sub(_called, str(text))}" for what, text in facts if text != ""]
        return "\n".join([f"{self.name}: {self.mistake}", *lines])


_FUNCTION, _called = re.compile("<function _?([a-z_]+) at 0x[0-9a-f]+>"), r"\1"


def saboteurs() -> tuple[Saboteur, ...]:
    """All of them, made anew: ``assert_unbiased`` must reject each, for every seed, and pass its twin."""
    return tuple(
        [
            Saboteur(
                row.name, row.mistake, row.program, frozen(np.array(row.parameters)), row.wrong, row.right, row.source
            )
            for row in rows()
        ]
    )
