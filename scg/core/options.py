"""Checks of numbers that a user gives: an integer is no bool, and a number is finite or within its bounds."""

import math
from typing import TypeGuard

import numpy as np

from scg.errors import ScgTypeError, ScgValueError, here


def is_integer(value: object, low: float = -math.inf, high: float = math.inf) -> TypeGuard[int]:
    """Whether ``value`` is an integer of Python or NumPy from ``low`` to ``high``, both included; a bool is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(low <= value <= high)


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite real number of Python or NumPy; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return math.isfinite(value)


def integer(name: str, given: object, least: int) -> int:
    """An integer of at least ``least``; ScgTypeError or ScgValueError, with the name of the option, for anything
    else."""
    if not is_integer(given):
        raise ScgTypeError(f"{name} must be an integer, got {given!r} ({here()})")
    if given < least:
        raise ScgValueError(f"{name} must be at least {least}, got {given} ({here()})")
    return int(given)


def number(name: str, given: object, low: float, high: float = math.inf, *, closed: bool = False) -> float:
    """A number between ``low`` (itself where ``closed``) and ``high``; ScgTypeError or ScgValueError for anything
    else."""
    if not isinstance(given, (int, float, np.integer, np.floating)) or isinstance(given, bool):
        raise ScgTypeError(f"{name} must be a number, got {given!r} ({here()})")
    if not ((low <= given if closed else low < given) and given < high):
        raise ScgValueError(
            f"{name} must lie {'from' if closed else 'above'} {low:g}"
            f" {f'and below {high:g}' if high < math.inf else 'on, finite'}, got {given} ({here()})"
        )
    return float(given)
