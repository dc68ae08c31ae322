"""scg: stochastic computation graphs in NumPy.

A stochastic computation graph is a program in which some values are drawn from distributions whose parameters depend on
what one differentiates (Schulman et al., 2015). Programs are written in NumPy; ``scg.sample`` draws, and declares by
which estimator the gradient passes the draw; ``scg.grad`` and its kin estimate the gradient of the expected result.

    functions   grad, value_and_grad, jacobian, hessian, hvp, vjp
    graphs      trace, Graph, parameter, gradients, surrogate, replay, stop_gradient, named
    draws       sample, minibatch, distributions, the estimators
    checks      testing, exact, variance
    plans       compile
    around it   special, objectives, nn, optim, checkpoint, tree
    from outside: primitive (with axes), distributions' and estimators' base classes
"""

from scg import checkpoint, distributions, errors, exact, nn, objectives, optim, primitives, special, testing, variance
from scg.core import axes, tree
from scg.core.ambient import detect_nan
from scg.core.node import Node, parameter, primitive
from scg.core.replay import replay
from scg.errors import ScgError
from scg.estimators import (
    ARM,
    REBAR,
    RELAX,
    Baseline,
    Constant,
    DisARM,
    Enumerate,
    GumbelSoftmax,
    Learned,
    LeaveOneOut,
    MeasureValued,
    MovingAverage,
    MuProp,
    Optimal,
    ReinMax,
    Reparameterized,
    ScoreFunction,
    StraightThrough,
    UnorderedSet,
)
from scg.plans import compile
from scg.primitives.layout import named, stop_gradient
from scg.stochastic.graph import Graph, trace
from scg.stochastic.sites import minibatch, sample
from scg.stochastic.surrogate import surrogate
from scg.transforms import grad, gradients, hessian, hvp, jacobian, value_and_grad, vjp


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when asked for: it takes milliseconds
        from importlib.metadata import version

        return version("scg")
    raise AttributeError(f"module 'scg' has no attribute {name!r}")
