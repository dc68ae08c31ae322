"""Checks of options before work begins."""

from collections.abc import Mapping

from scg.errors import ScgTypeError, here


def call_arguments(args: object, kwargs: object) -> None:
    """Raise ScgTypeError unless they are what a function can be called with."""
    if not isinstance(args, (tuple, list)):
        raise ScgTypeError(
            f"args must be a tuple of the function's arguments, got {type(args).__name__}: write args=(x,) ({here()})"
        )
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)):
        raise ScgTypeError(
            f"kwargs must be a dict of the function's keyword arguments, got {type(kwargs).__name__}: write"
            f" kwargs={{'n': 3}} ({here()})"
        )
