"""Gradients that a function from outside draws, and what is checked of them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scg.core.options import number
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here


class Samples:
    """Independent draws of a gradient, from a function of one's own: NumPy, PyTorch, JAX, a simulator.

    ``draw(n, rng)`` returns n draws: an array of shape (n, ...), or a structure of arrays (dicts, lists, tuples,
    dataclasses), each with a leading axis n. What has ``__array__`` or speaks DLPack is an array, a tensor too.
    All randomness is taken from ``rng``, so that draws are a function of its seed. Elements are real numbers;
    structure, shapes and dtypes stay from call to call.

    ``evaluations`` of the cost that one gradient takes, where it is known.

    ``method`` is how draws are made, in a few words, for those who read a report.
    """

    def __init__(
        self,
        draw: Callable[[int, np.random.Generator], Any],
        evaluations: float | None = None,
        *,
        method: str = "",
    ):
        if not callable(draw):
            raise ScgTypeError(
                f"Samples needs a function draw(n, rng) that returns n draws of a gradient, got {type(draw).__name__}"
                f" ({here()})"
            )
        self.draw, self.method = draw, method
        self.evaluations = None if evaluations is None else number("evaluations", evaluations, 0)

    def __repr__(self) -> str:
        name = getattr(self.draw, "__name__", type(self.draw).__name__)
        counted = "" if self.evaluations is None else f", evaluations={self.evaluations:g}"
        return f"Samples({name}{counted})" + (f" by {self.method}" if self.method else "")

    def take(self, n: int, rng: np.random.Generator) -> Any:
        """n draws as NumPy arrays in their structure, checked: real, each with a leading axis n."""
        given = self.draw(n, rng)
        return rebuild(given, iter([_array(path, leaf, n) for path, leaf in leaves(given)]))


def _array(path: str, leaf: Any, n: int) -> Any:
    where = f"draw({n}, rng){path}"
    try:
        array = np.asarray(leaf) if hasattr(leaf, "__array__") or np.isscalar(leaf) else np.from_dlpack(leaf)
    except Exception as error:
        raise ScgTypeError(
            f"{where} must be an array or a tensor in this computer's memory, got {type(leaf).__name__}, of which NumPy"
            f" makes none: {error} ({here()})"
        ) from error
    if array.dtype.kind not in "biuf":
        raise ScgTypeError(f"{where} must be of real numbers, got {type(leaf).__name__} of {array.dtype} ({here()})")
    if array.shape[:1] != (n,):
        raise ScgValueError(
            f"{where} must have a leading axis of {n}, one gradient each, got shape {array.shape} ({here()})"
        )
    return array
