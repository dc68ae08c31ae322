"""What a named problem is: a distribution as plain numbers, a cost for arrays of any framework, and exact answers."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scg import distributions, exact
from scg.core.aliases import Function, Operand, Tree
from scg.core.node import Value
from scg.core.tree import leaves
from scg.errors import ScgError, ScgValueError, here
from scg.estimators import DisARM, LeaveOneOut, MeasureValued, Reparameterized, ScoreFunction
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph, trace
from scg.stochastic.sites import sample

KNOWN: dict[str, Callable[[], Estimator]] = {
    "score function": ScoreFunction,
    "leave-one-out": lambda: ScoreFunction(LeaveOneOut(), samples=2),
    "DisARM": DisARM,
    "pathwise": Reparameterized,
    "measure-valued": MeasureValued,
}
"""Estimators whose exact variance a problem tells, on each of its draws."""

_BUDGET = 2**18


def namespace(x: Operand) -> Operand:
    """The module whose functions take ``x``: ``torch`` for a tensor, ``jax.numpy`` for an array of JAX, else NumPy."""
    home = type(x).__module__.partition(".")[0]
    return {"torch": sys.modules.get("torch"), "jax": sys.modules.get("jax.numpy")}.get(
        "jax" if home == "jaxlib" else home, np
    )


@dataclass(frozen=True)
class Draw:
    """One random variable of a problem.

    ``name``        of the variable
    ``family``      the name of its distribution, the same in scg, ``torch.distributions`` and the literature
    ``parameters``  (the problem's parameters, *the draws before it) -> a dict of arrays, by names that are those of
                    ``torch.distributions``: {"logits": ...}, {"loc": ..., "scale": ...}. All are arrays of the
                    framework that it is given, with the shape of the draw; it is differentiable, and takes
                    draws with leading axes.
    """

    name: str
    family: str
    parameters: Callable[..., Mapping[str, Value]]


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem from the literature with exact answers: the gradient of E[cost(x_1, ..., x_k)] by the parameters.

    ``name``, ``source``  what it is called, and where it is from
    ``parameters``        a dict of arrays of float64
    ``draws``             its random variables, in order; each may depend on those before
    ``cost``              (*the draws) -> numbers, for arrays of NumPy, PyTorch, JAX and nodes of scg. The last axis
                          of a vector is its own; axes before it stay: many samples may be given at once.

    The rest is derived: ``graph()``, ``gradient``, ``value``, ``variance(name)``.
    """

    name: str
    source: str
    parameters: dict[str, np.ndarray]
    draws: tuple[Draw, ...]
    cost: Function

    def __repr__(self) -> str:
        drawn = ", ".join(f"{d.name} ~ {d.family}" for d in self.draws)
        return f"<Problem {self.name}: {drawn}>"

    @property
    def discrete(self) -> bool:
        """Whether every variable is a count or a category."""
        return all([draw.family in ("Bernoulli", "Categorical", "Poisson", "Geometric") for draw in self.draws])

    def graph(self, estimator: Callable[[], Estimator] = ScoreFunction) -> Graph:
        """The same problem in scg, with an estimator on each draw."""

        def program(parameters: Tree, rng: np.random.Generator) -> Value:
            drawn: list[Value] = []
            for draw in self.draws:
                distribution = getattr(distributions, draw.family)(**draw.parameters(parameters, *drawn))
                drawn.append(sample(distribution, estimator(), rng=rng, name=draw.name))
            return self.cost(*drawn)

        return trace(program, self.parameters, rng=np.random.default_rng(0))

    @cached_property
    def value(self) -> float:
        """The expected cost, exactly."""
        return float(exact.expectation(self.graph(), budget=_BUDGET))

    @cached_property
    def gradient(self) -> dict[str, np.ndarray]:
        """The gradient of the expected cost, exactly, in the parameters' structure."""
        return exact.gradient(self.graph(), budget=_BUDGET)  # type: ignore[return-value]

    @cached_property
    def estimators(self) -> tuple[str, ...]:
        """The names of ``KNOWN`` that apply."""
        names = []
        for name, make in KNOWN.items():
            try:
                self.graph(make)
            except ScgError:
                continue
            names.append(name)
        return tuple(names)

    def variance(self, name: str) -> dict[str, np.ndarray]:
        """The exact variance of a known estimator, of one gradient, in the parameters' structure.

        It is that of scg's own, which multiplies each score with those costs alone that its draw can have influenced.
        Raises ScgValueError where the estimator does not apply, or its variance is out of reach.
        """
        if name not in KNOWN:
            raise ScgValueError(f"{name!r} is none of {', '.join(KNOWN)} ({here()})")
        found = self._variances
        if name not in found:
            found[name] = exact.moments(self.graph(KNOWN[name]), budget=_BUDGET, time_limit=20.0).variance
        return found[name]

    @cached_property
    def _variances(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    @property
    def variances(self) -> dict[str, dict[str, np.ndarray]]:
        """The exact variances of all known estimators that apply and whose variance can be computed."""
        found = {}
        for name in self.estimators:
            try:
                found[name] = self.variance(name)
            except ScgError:
                continue
        return found


def total(tree: Tree) -> float:
    """The sum over all elements of a structure, as of variances."""
    return float(sum(np.sum(leaf) for _, leaf in leaves(tree)))
