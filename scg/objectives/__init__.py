"""Bounds on log p(x) for latent-variable models, and the gradients by which they are raised.

Log-weights are log w_k = log p(x, z_k) - log q(z_k | x) for k = 1, ..., K samples z_k of the guide q, in nats; the
samples stand along one axis, and the bound has the other axes.

`scg.objectives.elbo` and `iwae` are bounds on log p(x) for latent-variable models: of log-weights along an axis, or
of a model and a guide, of one layer or several, and then `gradient=` names how they are differentiated ("pathwise",
"sticking the landing", "doubly reparameterized", "generalized doubly reparameterized", "score function", "VIMCO",
"OVIS"). The value is the same for all of them. `log_marginal` sums
discrete latent variables out of a model: with no others it is log p(x), else it has the place of a log-weight.

`renyi`, `jackknife` and `thermodynamic` are other functions of log-weights, each with its bias; `log_variance` is a
loss for the guide. The means of `sumo` and `multilevel` are log p(x) itself, at a random number of samples.

`smc` is a particle filter: an unbiased estimate of p(x) for models that go on in time, as a loop or by `state_space`.

```python
import numpy as np
import scg
from scg import distributions as dist

rng = np.random.default_rng(0)
def bound(params, rng):  # x = 1.5 was seen; z ~ N(0, 1), x | z ~ N(z, 1), and the guide is N(loc, scale)
    model = lambda z: dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.5)
    guide = dist.Normal(params["loc"], params["scale"])
    return scg.objectives.iwae(model, guide=guide, samples=10, rng=rng, gradient="doubly reparameterized")


posterior = {"loc": np.array(0.75), "scale": np.sqrt(np.array(0.5))}
value, gradient = scg.value_and_grad(bound)(posterior, rng=rng)
assert np.isclose(value, dist.Normal(0.0, np.sqrt(2.0)).log_prob(1.5))  # exact where the guide is the posterior,
assert abs(gradient["loc"]) < 1e-12 and abs(gradient["scale"]) < 1e-12  # and then this gradient has no noise
```
"""

from scg.objectives.bounds import GRADIENTS, elbo, iwae, renyi
from scg.objectives.layers import weighted
from scg.objectives.marginal import log_marginal
from scg.objectives.sequential import Particles, smc, state_space
from scg.objectives.unbiased import jackknife, multilevel, sumo
from scg.objectives.wake import hold, log_variance, sleep_phi, thermodynamic, wake_phi, wake_theta

__all__ = [
    "GRADIENTS",
    "Particles",
    "elbo",
    "hold",
    "iwae",
    "jackknife",
    "log_marginal",
    "log_variance",
    "multilevel",
    "renyi",
    "sleep_phi",
    "smc",
    "state_space",
    "sumo",
    "thermodynamic",
    "wake_phi",
    "wake_theta",
    "weighted",
]
