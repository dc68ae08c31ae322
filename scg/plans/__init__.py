"""Compiled plans: a recorded run of a function, turned into NumPy calls on preallocated buffers.

`scg.compile(fn)` is the same function with a plan behind it: NumPy calls on preallocated buffers. Same calls, same
results from the same draws. `fn` is a cost, a derivative of one, or a whole training step; `optimizer.step(gradient)`
in it is taken when the gradient is there.

```python
import numpy as np
import scg
from scg import distributions as dist

def loss(params, x, rng):
    z = scg.sample(dist.Normal(np.tanh(x @ params["w"]), 1.0), scg.Reparameterized(), rng=rng)
    return np.mean(scg.special.softplus(z) * z)


params, rng = {"w": np.zeros((3, 2))}, np.random.default_rng(0)
optimizer = scg.optim.Adam(params, learning_rate=1e-2)


@scg.compile
def step(params, x, rng):
    value, gradient = scg.value_and_grad(loss)(params, x, rng=rng)
    optimizer.step(gradient)
    return value


for _ in range(10):
    value = step(params, rng.standard_normal((5, 3)), rng)
```

The first call runs the function once, recorded, and plans; other shapes and dtypes, or an `if` that comes out
otherwise, record again. Arrays among the arguments are inputs; Python numbers, strings and functions are part of the
plan (another value is another plan: pass a number that changes as `np.float32(beta)`; `optimizer.learning_rate =
rate` within the function takes such a number in each call). What the function looks up outside its arguments
(globals, closures, attributes, entries of dicts and lists, elements of arrays with which NumPy alone computes) is
compared at each call, in a few microseconds, and another value is another plan; arrays that it gives to operations of
nodes are read anew, and watched where NumPy may have made something else of them. What it does beside computing, such
as printing, happens when it is recorded. Generators must be arguments. What a plan cannot do again raises `PlanError`
with the line: `node.value` read into Python or made into text, other values put into arguments or anywhere outside,
an error that is caught, Python's `random`, clocks, files, a baseline that learns in each run, parameters used after
the optimizer's step; `scg.compile(fn, fallback=True)` runs it plainly. `step.explain(params, x, rng)` prints the
plan: steps, buffers, bytes, what was fused, and what was not and why.

In the run that is recorded arrays among the arguments are nodes, as parameters are in `scg.grad`: there
`isinstance(x, np.ndarray)` and `type(x) is np.ndarray` are false, and a choice by them takes its other branch. Ask
`hasattr(x, "shape")`, which is true of both. An array that is passed twice is two nodes: `x is y` is false there.

A step of the cost that moves with the parameters and with a pathwise draw is refused as in a plain run. Where no sample
comes to such a step with the arguments that are recorded, the plan looks at each call whether samples do, at the cost
of a few operations; no program pays for a step that is none for any numbers, as that of a rectifier. Where the cost is
continuous there for some numbers alone (`np.where(z > 0, z + b, z)` with `b = 0`), the function runs plainly from then
on, and a RuntimeWarning says so.

With `threadpoolctl` installed (the extras `examples` and `bench` bring it), a plan with enough work runs on as many
threads as NumPy's OpenBLAS takes (up to four): large products and maps are cut by rows, what does not depend on one
another runs side by side, and the optimizer's blocks are shared out. Meanwhile the BLAS keeps to one thread;
afterwards, also after an interrupt, all is as before. A smaller plan keeps to the caller's thread. The same number of
threads gives the same bits. `scg.compile(fn, threads=1)` keeps to the caller's thread, and is the better choice where
NumPy's own large products run between the calls: the BLAS's threads then spin on the other cores.

# The rooms

- `running`, `recording`: one plain run with its arguments as nodes, its draws, its choices by values
- `witness`, `outside`, `places`, `names`, `derived`: what else the run does, and what it looks up outside its arguments
- `program`: what it computed, as operations
- `passes`: what makes a program shorter, and which thread runs what
- `kernels`, `rows`: how an operation runs into a buffer, and which of its rows may run alone
- `checks`: what must come out as it did, or be finite
- `buffers`: which result lives where
- `steps`: operations bound to their buffers
- `threads`: threads beside the caller's
- `building`, `plan`: all of these for one signature, and a call of it
- `compiled`: `scg.compile`: signatures, the cache, what to do where a plan does not hold
"""

from scg.plans.compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
