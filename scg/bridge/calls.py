"""Gradients of NumPy functions, one a call."""

from dataclasses import dataclass

import numpy as np

from scg.bridge.samples import Samples, name_of, require_parameters
from scg.core.aliases import Function, Tree
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here


def numpy(fn: Function, *args: object, evaluations: float | None = None) -> Samples:
    """``Samples`` of a function that computes one gradient: ``fn(*args, rng=rng)``, called once for each draw.

    ``fn`` returns an array, a number or a structure of these, of the same shapes in each call, and takes all
    randomness from ``rng``. Nothing of it has to be NumPy but that: it may run a simulator. Raises ScgTypeError where
    ``fn`` is no function; what a call returns is checked when draws are taken.
    """
    if not callable(fn):
        raise ScgTypeError(f"scg.bridge.numpy needs a function fn(*args, rng=), got {type(fn).__name__} ({here()})")
    require_parameters(fn, "fn(*args, rng=rng)", *args, rng=None)
    return Samples(Calls(fn, args), evaluations, method="a loop")


@dataclass(frozen=True, eq=False, repr=False)
class Calls:
    """draw(n, rng): n calls of ``fn``."""

    fn: Function
    args: tuple[object, ...]

    def __call__(self, n: int, rng: np.random.Generator) -> Tree:
        return stacked([self.fn(*self.args, rng=rng) for _ in range(n)], repr(self))

    def __repr__(self) -> str:
        return name_of(self.fn)


def stacked(found: list[Tree], name: str) -> Tree:
    """Gradients of one structure, one behind the other along a leading axis; ScgValueError where they differ."""
    columns = [list(leaves(each)) for each in found]
    paths = [path for path, _ in columns[0]]
    for i, column in enumerate(columns):
        if [path for path, _ in column] != paths:
            raise ScgValueError(
                f"{name}: gradients must have one structure, {paths}, got {[path for path, _ in column]} in call"
                f" {i + 1} of {len(found)} ({here()})"
            )
    stacks = []
    for path, *parts in zip(paths, *[[x for _, x in column] for column in columns], strict=True):
        try:
            stacks.append(np.stack([np.asarray(x) for x in parts]))
        except ValueError as error:
            shapes = sorted({np.shape(x) for x in parts})
            raise ScgValueError(
                f"{name}: gradients must have one shape{' at ' + path if path else ''}, got {shapes} ({here()})"
            ) from error
    return rebuild(found[0], iter(stacks))
