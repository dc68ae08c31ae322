"""scg: stochastic computation graphs in NumPy.

A stochastic computation graph is a program in which some values are drawn from distributions whose parameters depend on what one differentiates
(Schulman et al., 2015). Programs are written in NumPy; ``scg.sample`` draws, and declares by which estimator the gradient passes the draw;
``scg.grad`` and its kin estimate the gradient of the expected result.

    functions   grad, value_and_grad, jacobian, hessian, hvp, vjp
    graphs      trace, Graph, parameter, gradients, surrogate, replay, stop_gradient, named
    draws       sample, minibatch, distributions, the estimators
    checks      testing, exact, variance
    plans       compile
    around it   special, objectives, nn, optim, checkpoint, tree
    from outside: primitive (with axes), distributions' and estimators' base classes
"""

from scg import axes, checkpoint, distributions, errors, exact, nn, objectives, optim, primitives, special, testing, tree, variance
from scg.ambient import detect_nan
from scg.calculus import grad, gradients, hessian, hvp, jacobian, value_and_grad, vjp
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
from scg.graph import Node, parameter, primitive
from scg.plans import compile
from scg.primitives.layout import named, stop_gradient
from scg.replay import replay
from scg.sample import minibatch, sample
from scg.stochastic import Graph, trace
from scg.surrogate import surrogate


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when asked for: it takes milliseconds
        from importlib.metadata import version

        return version("scg")
    raise AttributeError(f"module 'scg' has no attribute {name!r}")
