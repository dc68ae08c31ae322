"""The door for gradients from outside: NumPy, PyTorch, JAX, a simulator.

`Samples` are draws of a gradient by a function of your own. `scg.testing.judge`, `assert_unbiased` and `assert_bias`
say whether they are unbiased, and `scg.variance.compare` what they are worth, beside estimators of scg or without any
graph.

| | |
| --- | --- |
| `Samples(draw)` | `draw(n, rng)` returns n gradients |
| `numpy(fn, *args)` | `fn(*args, rng=)` returns one gradient; it is called n times |
| `torch(loss, params)` | `loss(params, generator)` returns a scalar tensor; PyTorch computes its gradient |
| `jax(fn, *args)` | `fn(key, *args)` returns one gradient |

`enumerate` runs a program of theirs once for every outcome of its discrete samples: its exact mean and variance.

PyTorch and JAX are imported when their function is called, and not before.

```python
import numpy as np
import scg

def one(t, rng):  # the score function of E[(b - 0.4)^2], b a coin with logit t
    p = 1 / (1 + np.exp(-t))
    b = rng.random() < p
    return (b - 0.4) ** 2 * (b - p)

def two(t, rng):  # the same of two coins, each with the other's cost as its baseline
    p = 1 / (1 + np.exp(-t))
    b = rng.random(2) < p
    f = (b - 0.4) ** 2
    return (f[0] - f[1]) * (b[0] - p) / 2 + (f[1] - f[0]) * (b[1] - p) / 2

rows = {"one": scg.bridge.numpy(one, 0.0, evaluations=1), "two": scg.bridge.numpy(two, 0.0, evaluations=2)}
report = scg.variance.compare(0.05, rows, replicates=4000, rng=np.random.default_rng(0))
print(report.table(100, timed=False))
```

```text
     variance   ±95%     bias  (noise)    SNR  evals  ×evals
one    0.0169  0.45%  7.15e-4  0.00206  0.379      1       1
two    0.0025  0.38%  3.75e-4  7.91e-4   1.01      2   0.296

4000 replicates; bias against the given gradient; sums over coordinates; work: variance times, over
that of the first row
```
"""

from scg.bridge.branching import NotAFunctionOfItsDraws, TooManyOutcomes
from scg.bridge.calls import numpy
from scg.bridge.enumerating import Found, enumerate
from scg.bridge.jaxing import jax
from scg.bridge.samples import Samples
from scg.bridge.torching import torch

__all__ = ["Found", "NotAFunctionOfItsDraws", "Samples", "TooManyOutcomes", "enumerate", "jax", "numpy", "torch"]
