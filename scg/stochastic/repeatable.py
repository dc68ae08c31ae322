"""Whether a graph is a function of its parameters and of the generator that it is given, so that replicates, which draw
its nodes anew, are independent runs of the program that was traced.

Two runs from equal generators must agree: in their costs, in the gradients of estimators from outside the package, and
in the samples of distributions from outside. Where they do not, numbers come from elsewhere (a generator that was made
inside, a library's own, a simulator with a state), would be the same in all replicates, and are refused.
"""

import itertools
import pickle
from collections.abc import Iterator, Mapping

import numpy as np

from scg.core.aliases import Result, Tree
from scg.core.ambient import RECORDER
from scg.core.generators import held_generators, makes_generators, state_of
from scg.core.node import Node
from scg.distributions.base import Distribution
from scg.errors import EstimatorError, ScgValueError, here
from scg.stochastic.again import Again
from scg.stochastic.estimator import Estimator

_SAMPLES = 64  # which a distribution draws twice: for coins of 1/2 to agree by accident has probability 2^-64
_RUNS = 8  # of a function that makes generators: a sample of its own may be one coin


def _is_outside(kind: type) -> bool:
    return kind.__module__.split(".")[0] not in ("scg", "builtins")


def formulas(x: object) -> list[object]:
    """The functions, and whatever else, of the classes of an object that were written outside the package."""
    return [part for kind in type(x).__mro__ if _is_outside(kind) for part in vars(kind).values()]


def estimators_from_outside(stochastic: Mapping[str, Node]) -> dict[str, Estimator]:
    """The estimators that were not written in the package, one of each class, by the name of their first sample."""
    found: dict[type, tuple[str, Estimator]] = {}
    for name, node in stochastic.items():
        estimator = node.statics["site"].estimator
        if _is_outside(type(estimator)):
            found.setdefault(type(estimator), (name, estimator))
    return dict(found.values())


def own_formulas(stochastic: Mapping[str, Node]) -> list[object]:
    """What estimators from outside the package compute with."""
    return [part for e in estimators_from_outside(stochastic).values() for part in (*formulas(e), e)]


def refuse_own_generators(stochastic: Mapping[str, Node]) -> None:
    """Raise EstimatorError for the first estimator from outside that holds a generator."""
    for name, estimator in estimators_from_outside(stochastic).items():
        if held_generators(*formulas(estimator), estimator):
            raise EstimatorError(
                f"{name}: {type(estimator).__name__} takes numbers from a generator of its own, which all replicates"
                f" would share: draw them by down.noise(distribution) ({here()})"
            )


def refuse_unrepeatable(
    stochastic: Mapping[str, Node], again: Again | None, parameters: Tree, bindings: Mapping[str, Estimator]
) -> None:
    """Raise ScgValueError for the first sampler, or for the function, and EstimatorError for the estimators, where two
    runs from equal generators differ."""
    for name, node in stochastic.items():
        _refuse_sampler(name, node)
    if again is None:
        return
    own = estimators_from_outside(stochastic)
    token = RECORDER.set(None)
    try:
        suspect = makes_generators(again.fn, *[f for e in own.values() for f in formulas(e)])
        learned = _state(own)
        runs = _runs(again, parameters, bindings, bool(own))
        first = next(runs, None)
        for _ in range(_RUNS - 1 if suspect else 1):
            other = next(runs, None)
            if first is None or other is None:
                return
            if not _equal(first[:1], other[:1]):
                name = getattr(again.fn, "__name__", type(again.fn).__name__)
                raise ScgValueError(
                    f"{name} is not a function of its generator: two runs from equal ones gave costs"
                    f" {np.sum(first[0]):.6g} and {np.sum(other[0]):.6g}, so it takes numbers from elsewhere (or from"
                    " rng.spawn), or its state changes, and replicates would repeat what it took: draw by"
                    " scg.sample(distribution, estimator, rng=rng), or average scg.grad over fresh calls"
                    f" ({here()})"
                )
            if not _equal(first, other) and _state(own) == learned:
                names = ", ".join(f"{name} ({type(e).__name__})" for name, e in own.items())
                raise EstimatorError(
                    f"{names}: takes numbers from elsewhere than down.rng, which all replicates would share: two"
                    " gradients from equal generators differ. Draw them by down.noise(distribution)"
                    f" ({here()})"
                )
    finally:
        RECORDER.reset(token)


def _runs(again: Again, parameters: Tree, bindings: Mapping[str, Estimator], gradients: bool) -> Iterator[list[Result]]:
    """Costs, and gradients where they are wanted, of runs from equal generators; those that the function holds itself
    are put back after each run. What the function raises for these samples is said where it is met: here the runs
    end."""
    held = [(g, g.bit_generator.state) for g in held_generators(again.fn) if isinstance(g, np.random.Generator)]
    for family in itertools.count():
        try:
            values = again.values(parameters, _generator(family), bindings, gradients)
        except Exception:
            return
        finally:
            for generator, state in held:
                generator.bit_generator.state = state
        yield values


def _generator(family: int) -> np.random.Generator:
    """One of many equal generators, of which those that are spawned differ by ``family``."""
    bits = np.random.PCG64(family)
    bits.state = np.random.PCG64(0).state
    return np.random.Generator(bits)


def _state(estimators: Mapping[str, Estimator]) -> bytes | None:
    """What estimators hold, to be compared with what they hold later: one that learns from run to run may differ."""
    try:
        return pickle.dumps([vars(e) for e in estimators.values()])
    except (pickle.PicklingError, TypeError, AttributeError):
        return None


def _refuse_sampler(name: str, node: Node) -> None:
    distribution = node.statics["site"].distribution
    if not any(isinstance(part, Distribution) for part in _outside_of(node)):
        return
    plain = distribution.detached()
    shape = (_SAMPLES,) if node.size < 10_000 else ()
    rngs = _generator(0), _generator(1)
    before = state_of(rngs[0])
    one, other = (np.asarray(plain.sample(rng, shape)) for rng in rngs)
    unused = bool(shape) and state_of(rngs[0]) == before and bool(np.any(one != one[:1]))
    if unused or not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        raise ScgValueError(
            f"{name}: the samples of {type(distribution).__name__} are not a function of the generator that `sample` is"
            f" given: {'they vary, and it was not used' if unused else 'from equal ones they differ'}, so that"
            f" replicates, and workers, would repeat them. Draw them by the rng of sample(rng, shape) ({here()})"
        )


def _outside_of(node: Node) -> list[Distribution | Estimator]:
    """The estimator of a sample, its distribution and those of which it is made, where they are from outside."""
    site = node.statics["site"]
    return [part for part in (site.estimator, *_parts(site.distribution)) if _is_outside(type(part))]


def _parts(distribution: Distribution) -> Iterator[Distribution]:
    yield distribution
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            yield from _parts(part)


def _equal(first: list[Result], other: list[Result]) -> bool:
    """To what sums in another order may change."""
    return len(first) == len(other) and all(
        _close(np.asarray(a), np.asarray(b)) for a, b in zip(first, other, strict=True)
    )


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    size = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    return a.shape == b.shape and np.allclose(a, b, 0.0, size * np.finfo(a.dtype).eps ** 0.6, equal_nan=True)
