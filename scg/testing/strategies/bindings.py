"""Which estimators a stochastic node accepts: found by asking them, so that a new one takes part as soon as it is
exported."""

import functools
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType

import numpy as np
from hypothesis import strategies as st

from scg import estimators
from scg.core.aliases import Operand
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.tree import leaves
from scg.distributions.base import Distribution
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.estimators import Baseline
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph
from scg.testing.program import IMPORTS, Program

# What to call a class with, by the name of the argument; arguments of other names keep their defaults. The text of a
# value is in terms of ``scg`` and ``np``.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "samples": ("1", "2"),
    "k": ("2",),
    "temperature": ("0.5",),
    "gap": ("1.0",),
    "hard": ("False", "True"),
    "rao_blackwell": ("2",),
    "prune": ("False", "True", "'program'"),
    "coupling": ("'dirichlet'", "'antithetic'"),
    "value": ("0.5",),
    "fn": ("lambda phi, z: 0.7 * np.tanh(z / 2)",),
    "surrogate": ("lambda phi, f, d: d + 0.3 * np.sin(f + d)",),
    "parameters": ("np.array(0.7)",),
}


def bindings(
    graph: Graph | Program, *, unbiased: bool | None = True, order: int = 1, estimators: Sequence[str] | None = None
) -> st.SearchStrategy[dict[str, Estimator]]:
    """Assignments {name: estimator} that ``graph.bind`` takes, one for every stochastic node that has parameters, of
    all that are valid.

    Valid: accepted by the estimator's ``check``, and by the surrogate, for this graph. ``unbiased`` True (False): only
    estimators that claim to be (not to be) so, None: all. ``order`` 2: only those that a second derivative can be taken
    of. ``estimators`` are texts as in ``candidates()``, which are drawn from instead of all of the package's. Every
    sample has fresh instances, as some of them learn.

    Raises ScgValueError where a node has none.
    """
    graph = graph.graph() if isinstance(graph, Program) else graph
    if not isinstance(graph, Graph):
        raise ScgTypeError(f"bindings needs a graph or a program, got {type(graph).__name__} ({here()})")
    choices = valid(graph, unbiased=unbiased, order=order, estimators=estimators)
    for name, found in choices.items():
        if not found:
            raise ScgValueError(
                f"no estimator is valid for {name}, {graph.stochastic[name].statics['site']!r} ({here()})"
            )
    chosen = st.fixed_dictionaries({name: st.sampled_from(found) for name, found in choices.items()})
    return chosen.map(made).filter(lambda binding: works(graph, binding, order))


def valid(
    graph: Graph, *, unbiased: bool | None = True, order: int = 1, estimators: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """For every stochastic node that has parameters the texts of the estimators that are valid for it, the others being
    as they are."""
    chosen = {}
    for name, node in graph.stochastic.items():
        distribution = node.statics["site"].distribution
        if any(type(p) is Node for p in distribution.parameters.values()):
            texts = accepting(distribution, candidates(unbiased) if estimators is None else estimators)
            chosen[name] = [text for text in texts if works(graph, {name: instance(text)}, order)]
    return chosen


def enumerated(graph: Graph | Program, **which: Operand) -> Iterator[dict[str, Estimator]]:
    """All that ``bindings`` draws from, one after the other."""
    graph = graph.graph() if isinstance(graph, Program) else graph
    choices = valid(graph, **which)
    for texts in itertools.product(*choices.values()):
        binding = made(dict(zip(choices, texts, strict=True)))
        if works(graph, binding, which.get("order", 1)):
            yield binding


def works(graph: Graph, binding: Mapping[str, Estimator], order: int = 1) -> bool:
    """Whether the surrogate accepts a binding, and has derivatives up to ``order``."""
    try:
        bound = graph.bind(binding)
        loss = bound.surrogate(1 if order == 1 else None)
        if order > 1:
            targets = [leaf for _, leaf in leaves(bound.parameters)]
            first = [g for g in pull([loss], [np.ones((), loss.dtype)], targets, True) if type(g) is Node]
            pull(first, [np.linspace(1, 2, g.size).reshape(g.shape).astype(g.dtype) for g in first], targets)
    except ScgError:
        return False
    return True


def accepting(distribution: Distribution, texts: Sequence[str]) -> list[str]:
    """Those of some estimators whose ``check`` passes a distribution."""
    found = []
    for text in texts:
        try:
            instance(text).check(distribution, "")
            found.append(text)
        except ScgError:
            continue
    return found


def made(texts: Mapping[str, str]) -> dict[str, Estimator]:
    """Fresh estimators from their texts."""
    return {name: instance(text) for name, text in texts.items()}


def instance(text: str) -> Estimator:
    """A fresh estimator (or baseline) from its text."""
    return eval(_code(text), names())


@functools.cache
def names() -> dict[str, object]:
    """What a drawn text may name: ``np``, ``scg``, ``dist``."""
    space: dict[str, object] = {}
    exec("\n".join(IMPORTS.values()), space)
    return space


@functools.cache
def candidates(unbiased: bool | None = True) -> tuple[str, ...]:
    """The package's estimators as texts, such as ``scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())``, the
    plainest first.

    Every class with every combination of the ``ARGUMENTS`` that its signature names.
    """
    found: list[str] = []
    for name in sorted(estimators.__all__, key=lambda name: (name != "ScoreFunction", name)):
        cls = getattr(estimators, name)
        if (
            issubclass(cls, Estimator)
            and not inspect.isabstract(cls)
            and (unbiased is None or cls.unbiased == unbiased)
        ):
            found += [text for text in _calls(name, cls) if _is_possible(text)]
    return tuple(found)


def _is_possible(text: str) -> bool:
    """Whether an estimator can be made with these arguments: some need two samples, say."""
    try:
        instance(text)
    except ScgValueError:
        return False
    return True


@functools.cache
def _baselines() -> tuple[str, ...]:
    found: list[tuple[str, ...]] = [("None",)]
    for name in estimators.__all__:
        cls = getattr(estimators, name)
        if issubclass(cls, Baseline) and not inspect.isabstract(cls):
            calls = _calls(name, cls)
            # one that needs its inputs
            found.append(tuple([f"{call}(1.0)" if callable(instance(call)) else call for call in calls]))
    return tuple([text for texts in found for text in texts])


def _calls(name: str, cls: type) -> list[str]:
    named = {}
    for key, parameter in inspect.signature(cls).parameters.items():
        default = "" if parameter.default is parameter.empty else repr(parameter.default)
        values = _baselines() if key == "baseline" else ARGUMENTS.get(key, ())
        if not values and not default and parameter.kind is not parameter.VAR_KEYWORD:
            raise ScgTypeError(f"{name} needs {key}, for which no value is known: add one to ARGUMENTS ({here()})")
        if values:
            named[key] = [
                (key, value) if value != default else None
                for value in dict.fromkeys([default, *values] if default else values)
            ]
    calls = []
    for combination in itertools.product(*named.values()):
        given = ", ".join([f"{key}={value}" for key, value in filter(None, combination)])
        calls.append(f"scg.{name}({given})")
    return sorted(calls, key=len)


@functools.cache
def _code(text: str) -> CodeType:
    return compile(text, "<estimator>", "eval")
