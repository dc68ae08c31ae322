'''The door for authors: what primitives, distributions and estimators are declared with. What comes from outside has
the standing of what is inside: the same call or base class declares it, and nothing is registered.

**A primitive** is a function, its axis map, and a vector-Jacobian product for each operand, written in NumPy (`g` is
the cotangent of the result `out`). One text serves the first order and all others. What else is known of it stands
beside it: in which operands it is linear, so that costs are taken apart there, and where it has kinks or steps, so that
exact means are integrated by pieces. A fact that is not declared counts as not known, and is never taken for granted.

```python
import numpy as np
import scg
from scg import distributions as dist
from scg.extend import elementwise, primitive
from scg.testing import check_gradient

bump = primitive(lambda x: np.exp(-x * x), elementwise, lambda g, out, x: -2 * g * x * out, name="bump")
check_gradient(bump, np.linspace(-2, 2, 5), order=2)  # against complex steps and extrapolated differences

twice = primitive(lambda x: 2 * x, elementwise, lambda g, out, x: 2 * g, linear="together")
above = primitive(lambda x: np.where(x > 1, 1.0, 0.0), elementwise, steps=lambda x: x > 1)

def chance(t, rng):
    return above(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng))

assert abs(scg.exact.expectation(chance, np.array(0.7)) - 0.382089) < 1e-6  # P(z > 1)
```

**A distribution** is a frozen dataclass with constraints on its parameters, `sample` and `log_prob`. With a `cdf` it
can be reparameterized, by implicit differentiation.

```python
from dataclasses import dataclass
from scg.extend import Distribution, FixedSupport
from scg.distributions.constraints import positive
from scg.testing import check_distribution

@dataclass(frozen=True, eq=False, repr=False)
class Rayleigh(Distribution, FixedSupport):
    scale: np.ndarray
    constraints = {"scale": positive}
    support = positive

    def sample(self, rng, shape=()):
        return rng.rayleigh(self.detached().scale, self.full_shape(shape)).astype(self.dtype)

    def log_prob(self, z):  # -inf outside the support, where the formula is evaluated at 1
        inside = np.where(z <= 0, 1.0, z)
        return np.where(z <= 0, -np.inf, np.log(inside) - 2 * np.log(self.scale) - (inside / self.scale) ** 2 / 2)

    def cdf(self, z):
        return -np.expm1(-((np.maximum(z, 0.0) / self.scale) ** 2) / 2)

def second_moment(scale, rng):  # E[z^2] = 2 scale^2
    return np.mean(scg.sample(Rayleigh(scale), scg.Reparameterized(), rng=rng, shape=10_000) ** 2)

rng = np.random.default_rng(0)
check_distribution(Rayleigh(np.array(1.5)), rng=rng)  # sampler against cdf, normalisation, moments, derivatives
slope = scg.grad(second_moment)(np.array(1.5), rng=rng)  # of mean 4 scale = 6, and standard error 0.06
assert abs(slope - 6) < 5 * 0.06
```

**An estimator** says what it claims and needs, and adds a scalar that is zero and whose derivative is the estimate.
`down`, a `Downstream`, shows it the costs that the node influences, as they are and at other values of the node.

```python
from scg.extend import Estimator

class Difference(Estimator):
    """d/dt E[f(b)] = dp/dt E[f(1) - f(0)] for a coin b with probability p."""
    unbiased, requires, second_derivatives = True, (dist.Bernoulli,), True

    def expand(self, down):
        if not down.influences:
            return None
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        p = down.distribution.p
        return np.sum((p - scg.stop_gradient(p)) * (f1 - f0))

def cost(theta, rng):
    return np.mean((scg.sample(dist.Bernoulli(logits=theta), Difference(), rng=rng, name="b") - 0.499) ** 2)

graph = scg.trace(cost, np.zeros(5), rng=rng)
np.testing.assert_allclose(graph.gradients(), scg.exact.gradient(graph), rtol=1e-9)
scg.testing.assert_unbiased(graph, rng=rng)
```

One with noise of its own, which `down.noise` draws, so that each replicate has another:

```python
from scg.extend import first_order, score

class Compared(Estimator):
    """d/dt E[f(z)] = E[(f(z) - f(z')) d log p(z; t)], z' an independent sample, which is a baseline."""
    unbiased, requires, second_derivatives = True, (FixedSupport,), False

    def expand(self, down):
        if not down.influences:
            return None
        other = down.constant(down.noise(down.distribution.stop_gradient()))
        return np.sum(first_order(score(down.node), down.now() - down.at(other[None])[0]))

graph = graph.bind(b=Compared())
scg.testing.assert_unbiased(graph, rng=rng)
np.testing.assert_allclose(scg.exact.moments(graph).mean, scg.exact.gradient(graph), rtol=1e-9)
```

An estimator that takes the mean over all of its samples together overrides `condition(cost, samples)` in the place of
`expand`: it returns that mean given all other samples, a node that stands in the place of the cost, as
`scg.Marginalize` does.

The tools of an estimator: `score(node)`, the log-probability of a node's value; `box(s)`, one with the derivative of
s; `first_order(x, g)`, zero with the derivative g, which has none of its own; `held(x)`, a constant of the
estimator's formula, as `scg.stop_gradient(x)` is in `expand`; `noise_node`, noise as a leaf of the graph, so that
replicates draw it anew: an estimator draws all its random numbers by `down.noise`, by `down.with_others`, or in
`draw`; from a generator of its own it is refused where replicates would share the numbers.

`second_derivatives = True` beside the other claims says that the estimate may be differentiated again: that `expand` is
made of nodes throughout, in which a score, summed over the elements that a cost mixes, enters as `box(s) - 1`.
Second derivatives are refused without it, as with False. `node.value` is a number of one run: what is made of a
sample's is refused where others are drawn.
'''

from scg.core import axes
from scg.core.axes import AxisMap, along, contraction, elementwise, mixed, reduction
from scg.core.detaching import refuse
from scg.core.indices import Slot
from scg.core.primitive import implements, primitive
from scg.distributions import constraints
from scg.distributions.base import Discrete, Distribution, FiniteSupport, FixedSupport, Reparameterizable
from scg.distributions.bijections import Bijection
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import box, first_order, held, score
from scg.stochastic.sites import noise_node
from scg.stochastic.surrogate import Downstream

__all__ = [
    "AxisMap",
    "Bijection",
    "Discrete",
    "Distribution",
    "Downstream",
    "Estimator",
    "FiniteSupport",
    "FixedSupport",
    "Reparameterizable",
    "Slot",
    "along",
    "axes",
    "box",
    "constraints",
    "contraction",
    "elementwise",
    "first_order",
    "held",
    "implements",
    "mixed",
    "noise_node",
    "primitive",
    "reduction",
    "refuse",
    "score",
]
