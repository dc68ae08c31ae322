"""Bindings as users write them: a mapping or pairs, from the label of a row, and from nodes to estimators."""

from collections.abc import Iterable, Mapping

from scg.core.aliases import Result
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph

Bindings = Mapping[str, object] | Iterable[tuple[str, object]]
"""By the label of a row: estimators by node, a graph, or ``Samples``."""


def is_model(given: object) -> bool:
    """Whether a row is a graph, or a function that is traced, of its own."""
    return isinstance(given, Graph) or callable(given) and not isinstance(given, (Mapping, Estimator))


def binding_of(given: object) -> dict[str, Estimator]:
    """The estimators of a row by node. Raises ScgTypeError or ScgValueError where it is no binding."""
    if isinstance(given, Estimator):
        raise ScgTypeError(f"estimators are given by the name of their node, {{'b': {given!r}}} ({here()})")
    wanted: dict[str, Estimator] = {}
    for name, estimator in pairs_of(given, "a row", "node", "estimator"):
        if name in wanted:
            raise ScgValueError(f"node {name!r} is bound twice, to {wanted[name]!r} and {estimator!r} ({here()})")
        wanted[name] = estimator
    return wanted


def pairs_of(given: object, what: str, key: str, value: str) -> list[tuple[Result, Result]]:
    """What a mapping, or a sequence of pairs, binds to what."""
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        pairs = list(given)
        if all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            return pairs
    raise ScgTypeError(f"{what} must be a mapping from {key} to {value}, or pairs of these, got {given!r} ({here()})")
