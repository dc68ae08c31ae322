"""How much of a test is ordinary, and how much long: a share of the drawn examples, some of the cases.

The profiles of ``tests/conftest.py`` say how large the share is.
"""

import itertools

import pytest
from hypothesis import settings


def share(examples, least=5):
    """So many in a hundred as the profile of this run says, ``settings.default.max_examples``: all in a long run."""
    return max(examples * settings.default.max_examples // 100, min(least, examples))


def drawn(examples, **how):
    """The settings of a test of so many drawn examples, of which an ordinary run takes a share."""
    return settings(max_examples=share(examples), **how)


def first(count, cases):
    """The cases of a test, of which those after the first ``count`` are long."""
    return [case if k < count else pytest.param(case, marks=pytest.mark.long) for k, case in enumerate(cases)]


def every(step, cases):
    """The cases of a test, of which each ``step``-th is ordinary, the others long."""
    return [case if k % step == 0 else pytest.param(case, marks=pytest.mark.long) for k, case in enumerate(cases)]


def covering(*factors, times=1):
    """The product of some factors, as cases of several arguments: those in which each value of the longest factor comes
    so many times, the others in turns, are ordinary, the rest long."""
    sizes = [len(factor) for factor in factors]
    turns = itertools.product(range(max(sizes)), range(times))
    kept = {tuple([(k + turn * i) % size for i, size in enumerate(sizes)]) for k, turn in turns}
    pairs = zip(itertools.product(*map(range, sizes)), itertools.product(*factors), strict=True)
    return [pytest.param(*case, marks=() if at in kept else pytest.mark.long) for at, case in pairs]
