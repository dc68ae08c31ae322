"""Derivatives of functions of arrays: grad, value_and_grad, vjp, jacobian, hessian, hvp; and gradients of a graph.

`scg.grad`, `value_and_grad`, `vjp`, `jacobian`, `hessian` and `hvp` take a function and `argnums=0`, and go through
nested dicts, lists, tuples, named tuples and dataclasses of arrays. Other arguments, `rng` among them, are handed on.
A gradient is a graph again, so that any order is within reach. Node by node: `x = scg.parameter(array)`, then NumPy,
then `scg.gradients(cost, [x])`.

```python
import numpy as np
import scg
from scg import distributions as dist

def energy(params):
    return np.sum(np.tanh(params["weight"] @ np.ones(2)) ** 2) + params["scale"] ** 3


params = {"weight": np.array([[0.1, 0.2], [0.3, 0.4]]), "scale": np.array(2.0)}
print(scg.grad(energy)(params)["scale"], scg.hessian(energy)(params)["scale"]["scale"])
```

```text
12.0 12.0
```

`scg.surrogate(cost)` is the node behind all gradients of expectations: exactly the value of the cost, with
derivatives that estimate those of its expectation. `scg.replay(outputs, {node: values}, batched=[node])` runs a
recorded graph again with other values in place of some nodes and a leading axis of alternatives: one call where a
loop would stand.

`scg.nn` (multilayer perceptrons), `scg.optim` (SGD, Adam, averaging) and `scg.checkpoint` (atomic, without pickle,
with a checksum) are small and stand aside.

`scg.tree.flatten` makes a vector of a structure of parameters, and back, for optimizers that want one:

```python
import scipy.optimize


def loss(params):
    return np.sum((params["w"] - np.array([1.0, -2.0])) ** 2) + (params["b"] - 3.0) ** 2


vector, unflatten = scg.tree.flatten({"w": np.zeros(2), "b": 0.0})


def fun(v):
    value, gradient = scg.value_and_grad(loss)(unflatten(v))
    return value, scg.tree.flatten(gradient)[0]


found = unflatten(scipy.optimize.minimize(fun, vector, jac=True).x)
assert np.allclose(found["w"], [1.0, -2.0]) and np.isclose(found["b"], 3.0)
```

# Conventions

- **Kinks.** `abs`, `hypot`, `arctan2` and the Euclidean `norm` have derivative 0 at the origin, and there a second
  derivative of NaN, unless what is composed of them is smooth (`norm(x)**2`, `exp(-norm(x)**2)`); `floor`, `rint`,
  `sign` and comparisons have it everywhere, for they are constant between jumps.
- **Ties.** Elements that share a maximum or minimum share its cotangent equally; `clip` at a bound gives a half. This
  is the derivative, where there is one, of one extremum of smooth functions, and of what is composed smoothly of
  several of which each has two equal elements: of `np.maximum(x, 0) - np.maximum(-x, 0)` at 0 it is 1. It need not be
  where ties are made of ties: of `np.maximum(np.minimum(x, x**2), 0)` at 0 it is 1/4, and the derivative is 0; nor
  where one of several extrema has three equal elements. Sorting is stable: at ties each element of the result has the
  derivative of the one that stands there. A
  second derivative there is the limit of those nearby, as of `np.maximum(x, -x)**2` at 0, or NaN where these differ.
  So it is where a mask lies on its jump, as in `np.where(x > 0, x, 0)**2` at 0, unless the second derivatives nearby
  grow without bound; a first derivative there is that of the branch taken, or, where
  masks belong to neither side, as `x == 0` or `x > 0` beside `x < 0`, the limit of those nearby, if they have one.
- **0 * inf.** A zero by structure absorbs: an infinite or NaN slope in the branch that `np.where` did not take, in an
  element that was not picked, or in one matrix of a stack that is masked does no harm. Where a factor that was
  computed vanishes beside an infinite slope, as in `sqrt(x)**2` or `exp(log(x))` at 0 or in a function of a matrix by
  way of eigenvectors with equal eigenvalues, the derivative is the limit of those nearby, or NaN where they have
  none. Where the derivative itself is infinite, so is the gradient; where the cost is, it may be NaN.
- **Complex numbers** may stand inside (`fft`, for example). Parameters and costs are real; the cotangent of a complex
  z = x + iy is dL/dx - i dL/dy.
- **float32** stays float32, forward and backward.
"""

from scg.transforms.first import grad, gradients, value_and_grad, vjp
from scg.transforms.matrices import hessian, hvp, jacobian

__all__ = ["grad", "gradients", "hessian", "hvp", "jacobian", "value_and_grad", "vjp"]
