"""The door for gradients from outside: NumPy, PyTorch, JAX, a simulator.

``Samples`` are a function of one's own that draws gradients; ``scg.testing.judge`` and ``scg.variance.compare`` take
them as they take graphs. ``enumerate`` runs a program of theirs once for every outcome of its discrete draws: its exact
mean and variance.
"""

from scg.bridge.branching import NotAFunctionOfItsDraws, TooManyOutcomes
from scg.bridge.enumerating import Found, enumerate
from scg.bridge.samples import Samples

__all__ = ["Found", "NotAFunctionOfItsDraws", "Samples", "TooManyOutcomes", "enumerate"]
