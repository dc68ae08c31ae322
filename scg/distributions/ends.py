"""Samples that rounding carries over an end of their support."""

import numpy as np

from scg.core.axes import elementwise
from scg.core.primitive import smooth_primitive

within_ends = smooth_primitive(
    lambda z, low, high: np.clip(z, low, high),
    elementwise,
    lambda g, out, z, low, high: np.where((z < low) | (z > high), 0, g),
    lambda g, out, z, low, high: np.where(z < low, g, 0),
    lambda g, out, z, low, high: np.where(z > high, g, 0),
    name="within_ends",
)
"""z, moved to an end where it lies beyond. At an end it is z: ``np.clip`` shares the derivative between the two."""
