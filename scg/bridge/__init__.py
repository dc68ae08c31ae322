"""The door for gradients from outside: NumPy, PyTorch, JAX, a simulator.

``Samples`` are a function of one's own that draws gradients; ``scg.testing.judge`` and ``scg.variance.compare`` take
them as they take graphs.
"""

from scg.bridge.samples import Samples

__all__ = ["Samples"]
