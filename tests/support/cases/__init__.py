"""The catalogue: for every differentiable name, calls of it that the laws in ``test_laws.py`` are
held against."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Domain(NamedTuple):
    """Where an operand is drawn from: uniform on [low, high], of a fixed shape, or (None) of any shapes that broadcast
    together.

    ``make`` turns the draw into what the callable needs (a positive definite matrix, say); it is part of the function
    that is differentiated, so it must be smooth and written in NumPy.
    """

    low: float = -2.0
    high: float = 2.0
    shape: tuple[int, ...] | None = None
    make: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Case:
    """One call: ``fn`` of its array operands, one domain an operand; statics are written into the lambda.

    ``fn`` returns an array or a tuple (or list) of arrays. ``order`` is how many times it is differentiated in the
    check (0 for a constant: its value and its replay are checked, and that its derivative is zero).
    """

    name: str
    fn: Callable[..., Any]
    domains: tuple[Domain, ...]
    order: int = 2


def all_cases() -> list[Case]:
    """The cases of every module of this folder."""
    import importlib
    import pkgutil

    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [case for name in modules for case in importlib.import_module(f"{__name__}.{name}").CASES]
