"""Gradient estimators: how a gradient passes a stochastic node. One file a method: its formula, its claims, its price.

An estimator is declared where the sample is made, and can be replaced by name. All of them are subclasses of one
`Estimator`, and each file says its formula, its paper and its price.

| estimator | stochastic nodes that it takes | evaluations of the cost | biased |
| --- | --- | --- | --- |
| `ScoreFunction(baseline=None, samples=1)` | whose support does not move | `samples` | no |
| `Reparameterized()` | functions of parameters and noise | 1 | no |
| `Enumerate(k=None)` | of finitely many values | K, or k + 1 | no |
| `Marginalize(budget=2**20)` | of finitely many values, all of them together | a table of each part | no |
| `MeasureValued()` | of distributions with a known weak derivative | 2 for each parameter | no |
| `ARM()`, `DisARM()` | coins; `DisARM` also one of K | 2 | no |
| `REBAR(temperature=0.5)`, `RELAX(fn)` | coins, one-hot vectors, orders | 3; 1 | no |
| `CoupledPairs(samples=2)` | of finitely many values | `samples` | no |
| `DoubleControlVariate(samples=2)` | real numbers with a mean | `samples`, with slopes | no |
| `RODEO(samples=2, surrogate=None)` | of finitely many values with a mean | `samples`, with slopes | no |
| `StochasticDerivative(prune=False)` | integers without a gap | 2, or one more for each element | no |
| `MuProp()` | real numbers with a mean | 2 | no |
| `UnorderedSet(k)` | of finitely many values | k | no |
| `GumbelSoftmax(temperature, hard=False, rao_blackwell=None)` | coins, one-hot vectors | 1 | yes |
| `StraightThrough(temperature=None, gap=None)`, `ReinMax()` | coins, one-hot vectors | 1 | yes |

`StochasticDerivative(prune="program")` moves one element of all samples that have it: 2 evaluations for any program.
Where an `if` comes out otherwise at another value of a sample, the function is run again there, from the same
randomness; what takes slopes there, second derivatives and plans raise `GuardError` or `PlanError` instead.
For samples that move with other samples alone, as the states of a chain, no estimator looks at the cost.
Where a cost mixes the elements of a sample, `Enumerate` and `MeasureValued` take the elements in turn. `ARM`, `DisARM`,
`REBAR`, `RELAX`, `MuProp`, `MeasureValued`, `CoupledPairs`, `DoubleControlVariate`, `RODEO` and `StochasticDerivative`
give first derivatives only, and a second one is refused with the names of those that have it for the distribution.

`Marginalize` differs from `Enumerate` in that it sums out several samples together, those drawn from one another too,
and the whole gradient, also by what the cost itself holds of the parameters. What is left is E[c | the other samples].
The logarithm of such a mean, as a bound on log p(x) needs it, is `scg.objectives.log_marginal`.

Estimators that look at the cost, or its slope, at other values make samples further down again there from the same
randomness, for first derivatives: numbers and counts keep their quantile, categories stay where
they can. Means are exact either way. For a sum of 20 coins, each drawn given the last, the variance of `Enumerate` is
3.75, and 33.1 with `Enumerate(coupled=False)`, which draws anew. That has less variance where the cost turns around
what lies further down, as `(z - w) ** 2` of two coins does: `scg.variance.compare` tells.

Baselines of the score function: `Constant(value)`, `LeaveOneOut()`, `MovingAverage(decay)`, `Optimal(decay)` and
`Learned(fn, phi)`. What learns from one step to the next (the last three, and `REBAR`, `RELAX` and `RODEO` with an
optimizer) has a `state`, which `scg.checkpoint` saves.

An estimator on a sample that it is not valid for is refused where it is declared:

```python
import textwrap
import numpy as np
import scg
from scg import distributions as dist

theta, rng = np.zeros(200), np.random.default_rng(0)
try:
    scg.sample(dist.Bernoulli(logits=theta), scg.Reparameterized(), rng=rng, name="b")
except scg.ScgError as error:
    print(textwrap.fill(str(error), 110))
```

```text
b: Reparameterized needs a reparameterizable distribution, got Bernoulli(logits=float64[200]); use
ScoreFunction(), DisARM() or Enumerate() (model.py:8, in <module>)
```

`scg.sample(..., shape=n)` puts n independent samples along a leading axis; for `Reparameterized` their noise may be
coupled, `coupling=scg.noise.Sobol()`, and means over the axis vary less. `batch = scg.minibatch(n, size, rng=rng)` is
a uniformly drawn minibatch as a stochastic node, so that the doubly stochastic procedure is part of the graph:
`batch.rows(data)` are its rows of an array, and `batch.factor * np.sum(...)` over them estimates the sum over all n.
Numbers that a cost takes from a generator itself (`rng.integers(n)`, `rng.permutation(n)`) are right in `scg.grad`;
where a parameter is only compared with them, as p in `rng.random() < p`, it refuses: write `dist.Bernoulli(p)`. It
does not see an `if rng.random() < p:`, whose gradient lacks what p contributes. Such numbers are no nodes of a traced
graph: its `gradients` run the function again for each replicate, and `scg.exact`, verdicts and `compare` refuse.

Noise may also come from a copy or a child of the generator (`copy.deepcopy(rng)`, `rng.spawn(1)`), from one that is
made inside, from `node.value`. Before a recorded run is replayed, it is compared with another run of the function in
replicates of the same samples. Where their costs differ, replicates and all of the above refuse, and name the line;
replicates of gradients, and verdicts with a reference, go on where only a number is added to the cost.
"""

from typing import TYPE_CHECKING

from scg.core.advice import absent
from scg.estimators.arm import ARM, DisARM
from scg.estimators.baselines import Baseline, Constant, Learned, LeaveOneOut, MovingAverage, Optimal
from scg.estimators.coupled import CoupledPairs
from scg.estimators.difference import StochasticDerivative
from scg.estimators.double import DoubleControlVariate
from scg.estimators.enumerate import Enumerate
from scg.estimators.marginal import Marginalize
from scg.estimators.measure import MeasureValued
from scg.estimators.muprop import MuProp
from scg.estimators.rebar import REBAR, RELAX
from scg.estimators.relaxed import GumbelSoftmax, ReinMax, StraightThrough
from scg.estimators.reparameterized import Reparameterized
from scg.estimators.score import ScoreFunction
from scg.estimators.sets import UnorderedSet
from scg.estimators.stein import RODEO

__all__ = [
    "ARM",
    "Baseline",
    "Constant",
    "CoupledPairs",
    "DisARM",
    "DoubleControlVariate",
    "Enumerate",
    "GumbelSoftmax",
    "Learned",
    "LeaveOneOut",
    "Marginalize",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "Optimal",
    "REBAR",
    "RELAX",
    "RODEO",
    "ReinMax",
    "Reparameterized",
    "ScoreFunction",
    "StochasticDerivative",
    "StraightThrough",
    "UnorderedSet",
]

if not TYPE_CHECKING:  # for which a name that is not there is an error
    __getattr__ = absent(
        __name__,
        {
            **dict.fromkeys(("REINFORCE", "Reinforce", "LikelihoodRatio"), "ScoreFunction()"),
            **dict.fromkeys(("Pathwise", "rsample"), "Reparameterized()"),
            "RLOO": "ScoreFunction(samples=4, baseline=LeaveOneOut())",
            "NVIL": "ScoreFunction(baseline=Learned(fn, parameters))",
            "STE": "StraightThrough()",
        },
    )
