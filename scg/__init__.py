"""Stochastic computation graphs in NumPy: unbiased gradients of expected costs, and the means to check them.

A stochastic computation graph is a program in which some values are drawn from distributions whose parameters depend on
what one differentiates (Schulman et al., 2015). Programs are written in NumPy; ``scg.sample`` draws, and declares by
which estimator the gradient passes the stochastic node; ``scg.grad`` and its kin estimate the gradient of the expected
result.

| | |
| --- | --- |
| derivatives | `grad`, `value_and_grad`, `vjp`, `jacobian`, `hessian`, `hvp`, `gradients`, `stop_gradient` |
| graphs | `trace`, `Graph`, `Node`, `parameter`, `named`, `replay`, `surrogate` |
| stochastic nodes | `sample`, `minibatch`, `scg.distributions` |
| estimators | `scg.estimators`: `ScoreFunction`, `Reparameterized`, `Enumerate`, `DisARM`, ... and baselines |
| checks | `scg.testing`, `scg.exact`, `scg.variance`, `detect_nan` |
| speed | `scg.plans`: `compile` |
| models | `scg.objectives`, `scg.special`, `scg.nn`, `scg.optim`, `scg.checkpoint`, `scg.tree` |
| your own | `scg.extend`: primitives, distributions, estimators; `scg.bridge`: gradients from outside |
| refusals | `ScgError`, `scg.errors` |
"""

import importlib
from typing import TYPE_CHECKING, Any

from scg import distributions, errors, estimators, noise, primitives, special, transforms
from scg.core import axes, tree
from scg.core.ambient import detect_nan
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.primitive import primitive
from scg.core.replay import replay
from scg.errors import ScgError
from scg.estimators import (
    ARM,
    REBAR,
    RELAX,
    RODEO,
    Baseline,
    Constant,
    CoupledPairs,
    DisARM,
    DoubleControlVariate,
    Enumerate,
    GumbelSoftmax,
    Learned,
    LeaveOneOut,
    Marginalize,
    MeasureValued,
    MovingAverage,
    MuProp,
    Optimal,
    ReinMax,
    Reparameterized,
    ScoreFunction,
    StochasticDerivative,
    StraightThrough,
    UnorderedSet,
)
from scg.primitives.holding import stop_gradient
from scg.primitives.layout import named
from scg.stochastic.graph import Graph, trace
from scg.stochastic.minibatches import minibatch
from scg.stochastic.sites import sample
from scg.stochastic.surrogate import surrogate
from scg.transforms import grad, gradients, hessian, hvp, jacobian, value_and_grad, vjp

if TYPE_CHECKING:
    from scg import bridge, checkpoint, exact, extend, nn, objectives, optim, plans, testing, variance
    from scg.plans import compile

__all__ = [
    "ARM",
    "Baseline",
    "Constant",
    "CoupledPairs",
    "DisARM",
    "DoubleControlVariate",
    "Enumerate",
    "Graph",
    "GumbelSoftmax",
    "Learned",
    "LeaveOneOut",
    "Marginalize",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "Node",
    "Optimal",
    "REBAR",
    "RELAX",
    "RODEO",
    "ReinMax",
    "Reparameterized",
    "ScgError",
    "ScoreFunction",
    "StochasticDerivative",
    "StraightThrough",
    "UnorderedSet",
    "axes",
    "bridge",
    "checkpoint",
    "compile",
    "detect_nan",
    "distributions",
    "errors",
    "estimators",
    "exact",
    "extend",
    "grad",
    "gradients",
    "hessian",
    "hvp",
    "jacobian",
    "minibatch",
    "noise",
    "named",
    "nn",
    "objectives",
    "optim",
    "parameter",
    "plans",
    "primitive",
    "replay",
    "sample",
    "special",
    "stop_gradient",
    "surrogate",
    "testing",
    "trace",
    "transforms",
    "tree",
    "value_and_grad",
    "variance",
    "vjp",
]


# what not every program needs is imported when it is asked for
_LATER = ("bridge", "checkpoint", "exact", "extend", "nn", "objectives", "optim", "plans", "testing", "variance")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"scg.{name}")
    if name == "compile":
        globals()[name] = importlib.import_module("scg.plans").compile
        return globals()[name]
    if name == "__version__":  # it takes milliseconds
        from importlib.metadata import version

        return version("scg")
    raise AttributeError(f"module 'scg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
