"""scg: stochastic computation graphs in NumPy."""

from scg import axes, checkpoint, distributions, errors, nn, objectives, optim, primitives, special
from scg.ambient import detect_nan
from scg.calculus import grad, gradients, hessian, hvp, jacobian, value_and_grad, vjp
from scg.errors import ScgError
from scg.estimators import (
    ARM,
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
    REBAR,
    RELAX,
    ReinMax,
    Reparameterized,
    ScoreFunction,
    StraightThrough,
    UnorderedSet,
)
from scg.graph import Node, parameter, primitive
from scg.primitives.layout import stop_gradient
from scg.replay import replay
from scg.sample import minibatch, sample
from scg.stochastic import Graph, trace
from scg.surrogate import surrogate
