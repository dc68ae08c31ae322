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
from scg.core.advice import absent
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


_GENERATOR = "rng = np.random.default_rng(seed), an argument that is handed on"
_ARRAY = "np.asarray(...): arrays are arguments as they are, and scg.parameter(array) is a node of one"
_PLAIN = "fn(x): called with arrays, a function makes no graph; scg.stop_gradient(node) holds one value constant"
_LOOP = "Python's own for, while and if, or np.where"
_absent = absent(
    "scg",
    {
        "jit": "scg.compile(fn)",
        **dict.fromkeys(
            ("vmap", "pmap"),
            "scg.trace(fn, x, rng=rng).gradients(rng=rng, replicates=n) for runs of a function, or one more axis of the"
            " arrays: NumPy's broadcasting is all that there is",
        ),
        **dict.fromkeys(("jacrev", "jacfwd"), "scg.jacobian(fn)"),
        "jvp": "scg.jacobian(fn)(x) @ direction, or scg.hvp for second derivatives",
        **dict.fromkeys(("gradient", "backward", "autograd"), "scg.grad(fn)(x) or scg.value_and_grad(fn)(x)"),
        "detach": "scg.stop_gradient(node)",
        **dict.fromkeys(("no_grad", "inference_mode", "enable_grad"), _PLAIN),
        **dict.fromkeys(("tensor", "Tensor", "array", "Array", "asarray", "Variable", "numpy"), _ARRAY),
        **dict.fromkeys(("random", "manual_seed", "seed", "set_seed", "set_rng_seed", "PRNGKey", "rng"), _GENERATOR),
        **dict.fromkeys(("lax", "scan", "cond", "fori_loop", "while_loop"), _LOOP),
        "param": "scg.parameter(array), or an argument of the function that is differentiated",
        **dict.fromkeys(("plate", "vectorized_markov"), "one more axis: axis maps find what is independent"),
        **dict.fromkeys(("SVI", "ELBO", "Trace_ELBO"), "scg.objectives.elbo and scg.value_and_grad"),
        **dict.fromkeys(("tree_map", "tree_util"), "scg.tree.map_leaves(fn, tree)"),
        "dist": "from scg import distributions as dist",
        "relu": "np.maximum(x, 0.0)",
    },
    ["scg.distributions", "scg.special", "scg.optim", "scg.objectives", "scg.testing", "scg.nn"],
)


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"scg.{name}")
    if name == "compile":
        globals()[name] = importlib.import_module("scg.plans").compile
        return globals()[name]
    if name == "__version__":  # it takes milliseconds
        from importlib.metadata import version

        return version("scg")
    return _absent(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
