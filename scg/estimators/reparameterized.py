"""The pathwise estimator."""

from typing import Any, final

import numpy as np

from scg.distributions.base import Distribution, Reparameterizable
from scg.distributions.uniform import noise_of, transported
from scg.estimator import Estimator
from scg.sample import noise_node


@final
class Reparameterized(Estimator):
    """Pathwise: z = t(e; theta) with noise e free of theta, so d/dtheta E[f(z)] = E[f'(z) dt/dtheta] (Kingma and Welling, 2014; Rezende et al., 2014).

    One evaluation of the cost. The cost must be differentiable in z almost everywhere and continuous: a step in it has zero derivative
    and would be lost. A term of the cost that depends on z through steps alone (``np.round(z)``, ``np.mean(z > 0)``) is refused; whether
    the branches of an ``if`` or of ``np.where`` meet at the step is for the user to see.
    """

    requires = (Reparameterizable,)
    instead = "ScoreFunction(), DisARM() or Enumerate()"

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        law, size = noise_of(distribution, shape)
        return transported(distribution, noise_node(law, rng, size, distribution.dtype))
