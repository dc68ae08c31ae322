"""Estimators by the names of samples: those of a binding, and of the runs of a function that a bound graph makes."""

import contextvars
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

from scg.distributions.base import Distribution
from scg.stochastic.estimator import Estimator


class _Overrides:
    """Estimators by name or pattern, for the samples of one run of a function."""

    def __init__(self, estimators: Mapping[str, Estimator]):
        self.estimators, self.count = estimators, Counter[str]()

    def of(self, name: str | None, distribution: Distribution) -> Estimator | None:
        """The estimator for a sample, which has the name that ``graph.stochastic`` gives it."""
        if name is None:
            name = numbered(type(distribution).__name__.lower(), self.count)
        return bound_to(name, self.estimators)


_OVERRIDES: contextvars.ContextVar[_Overrides | None] = contextvars.ContextVar("scg_overrides", default=None)


@contextmanager
def overridden(estimators: Mapping[str, Estimator]) -> Iterator[None]:
    """Within the block, samples of these names (or patterns) have these estimators: how a bound graph traces its
    function again."""
    token = _OVERRIDES.set(_Overrides(estimators) if estimators else None)
    try:
        yield
    finally:
        _OVERRIDES.reset(token)


def override_of(name: str | None, distribution: Distribution) -> Estimator | None:
    """The estimator that an ``overridden`` block has for the next sample; None where there is none."""
    overrides = _OVERRIDES.get()
    return None if overrides is None else overrides.of(name, distribution)


def is_overridden() -> bool:
    """Whether an ``overridden`` block with estimators is open."""
    return _OVERRIDES.get() is not None


def bound_to(name: str, estimators: Mapping[str, Estimator]) -> Estimator | None:
    """What ``estimators`` have for a name: under the name itself, else under the last pattern that it matches (as file
    names do: ``a*``)."""
    if name in estimators:
        return estimators[name]
    return next(
        (estimator for pattern, estimator in reversed(list(estimators.items())) if fnmatchcase(name, pattern)), None
    )


def numbered(kind: str, count: Counter[str]) -> str:
    """``bernoulli``, ``bernoulli_1``, ...: the name of the next sample of a kind that has none."""
    count[kind] += 1
    return kind if count[kind] == 1 else f"{kind}_{count[kind] - 1}"
