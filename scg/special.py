"""Special functions that are no ufuncs (a start: softplus and sigmoid)."""

import numpy as np

from scg.axes import elementwise
from scg.graph import primitive

softplus = primitive(
    lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), elementwise, lambda g, out, x: g * -np.expm1(-out), name="softplus"
)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))
