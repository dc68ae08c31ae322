"""The pathwise estimator."""

from typing import final

import numpy as np

from scg.core.node import Value
from scg.distributions.base import Distribution, Reparameterizable
from scg.distributions.uniform import noise_of, transported
from scg.noise import Coupling
from scg.stochastic.estimator import Estimator
from scg.stochastic.sites import noise_node


@final
class Reparameterized(Estimator):
    """Pathwise: z = t(e; theta) with noise e free of theta, so d/dtheta E[f(z)] = E[f'(z) dt/dtheta] (Kingma and
    Welling, 2014; Rezende et al., 2014).

    One evaluation of the cost. The cost must be differentiable in z almost everywhere and continuous: a step in it has
    zero derivative and would be lost. So it is refused where the cost jumps: ``np.round(z)``, ``np.mean(z > 0)``,
    ``np.where(z > 0, z + 1, z)``. Both sides of a step are computed, and where they meet, as in ``np.where(z > 0, z,
    0.1 * z)``, it is no jump. An ``if`` whose outcome draws can change is refused, as its other branch is not known.
    """

    requires = (Reparameterizable,)
    offered = 1
    couples = True

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> Value:
        base, size = noise_of(distribution, shape)
        return transported(distribution, noise_node(base, rng, size, distribution.dtype))

    def draw_coupled(
        self,
        distribution: Distribution,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        coupling: Coupling,
        axis: int,
    ) -> Value:
        base, size = noise_of(distribution, shape)

        def fresh(of: Distribution, shape: tuple[int, ...]) -> Value:
            return noise_node(of, rng, shape, distribution.dtype)

        return transported(distribution, coupling.coupled(base, size, axis, fresh))
