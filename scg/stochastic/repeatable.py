"""Whether a recorded run stands for all runs of its function, so that replicates, which draw its nodes anew, are
independent runs of the program that was traced.

The cost of a run is F(x, e): x are the samples that are nodes, e is all else that may differ from run to run, such as
numbers of a copy of the generator, of a child, of one that is made inside, or a state. A replay has the e of the
recorded run for ever: it is right where F does not depend on e. What must agree:

* two recorded runs, whose e differ, as functions of x: node by node, or else in replicates of the same x;
* where an ``if`` on a sample tells these apart, two runs whose e differ and whose nodes are drawn from equal generators
  (``drawing_apart``).

The same holds of what an estimator from outside adds to the gradient, a function of x and of the noise that it draws.
"""

import contextvars
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Function, Result, Tree
from scg.core.ambient import AMBIENT, RECORDER, SCOPE, WATCH
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.generators import drawing_apart, held_generators, names_sources, state_of
from scg.core.node import Node
from scg.distributions.base import Distribution
from scg.errors import EstimatorError, ScgValueError, here
from scg.stochastic.again import Again, gradient_of
from scg.stochastic.analysis import analysed
from scg.stochastic.costs import First, as_replicates
from scg.stochastic.estimator import Estimator
from scg.stochastic.likeness import close, first_difference, has_other_ways, held_apart
from scg.stochastic.replicates import block_of
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw, is_noise, turn_of
from scg.stochastic.surrogate import expansions, surrogate
from scg.stochastic.tape import TAPE, Turn

_SAMPLES = 64  # which a distribution draws twice: for coins of 1/2 to agree by accident has probability 2^-64
_RUNS = 8  # to compare, where numbers may be no nodes: they may be those of one coin
_SEED = 0x5C6
_REPLICATES = 32  # of the same samples: what only some of them show is seen, as noise times a coin


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


def refuse_samplers(stochastic: Mapping[str, Node]) -> None:
    """Raise ScgValueError for the first sampler whose samples are no function of the generator that it is given."""
    for name, node in stochastic.items():
        _refuse_sampler(name, node)


class _Run(NamedTuple):
    """Nodes of a run, and values that are compared: their replicates, or the cost and its gradient."""

    roots: list[Node]
    values: list[Result]


class Runs:
    """Runs of a traced function at some parameters, each from generators of another stream."""

    def __init__(self, again: Again, parameters: Tree, bindings: Mapping[str, Estimator]):
        self._again, self._given, self._bindings = again, parameters, bindings

    def refuse_estimators(self, stochastic: Mapping[str, Node]) -> None:
        """Raise EstimatorError where an estimator was made of numbers of one run, and where estimators from outside
        give other gradients for the same samples and noise."""
        if names_sources(self._again.fn):
            _alone(self._refuse_held)
        own = estimators_from_outside(stochastic)
        if not own:
            return
        learned = _state(own)
        count = self._count(*[f for e in own.values() for f in formulas(e)])
        with as_replicates(First()):  # what learns is the same in all runs
            found = self._differing(self._estimates, None, count, gradients=True)
        if found is not None and _state(own) == learned:
            names = ", ".join(f"{name} ({type(e).__name__})" for name, e in own.items())
            raise EstimatorError(
                f"{names}: takes numbers that are no nodes, which all replicates would share: two gradients from the"
                f" same samples differ{_line(*found)}. Draw them by down.noise(distribution) ({here()})"
            )

    def _refuse_held(self) -> None:
        """Raise EstimatorError where a sample of two runs that are alike has estimators with other numbers."""
        runs: list[Node] = []
        with suppress(Exception):  # chance leads out of a domain
            for k in range(_RUNS + 1):
                runs += self._costs(k)
        for one, other in itertools.combinations([cost for cost in runs if type(cost) is Node], 2):
            if (found := held_apart(one, other)) is not None:
                site, again = (node.statics["site"] for node in found)
                raise EstimatorError(
                    f"{site!r}, drawn at {found[0].line}: its estimator was made of numbers of one run, which all"
                    f" replicates would share; in another run it is {again.estimator!r}. Give it numbers that are the"
                    " same in all runs, or nodes to a baseline that takes them, scg.ScoreFunction(scg.Learned(fn,"
                    f" phi)(node)) ({here()})"
                )

    def unexplained(self, cost: Node) -> str | None:
        """How other runs of the same samples differ from the recorded one; None where they do not."""
        found = self._differing(self._costs, [cost], self._count())
        if found is None:
            return None
        name = getattr(self._again.fn, "__name__", type(self._again.fn).__name__)
        a, b = (np.ravel(run.values[0]) for run in found)
        k = np.argmax(a != b)
        return (
            f"{name} is not a function of its samples: two runs from equal ones gave costs {a[k]:.6g} and {b[k]:.6g}"
            f"{_line(*found)}, so it takes numbers that are no nodes (of a copy of rng, of rng.spawn, of a generator"
            " that is made inside, node.value), or its state changes"
        )

    def have_one_gradient(self) -> bool:
        """Whether the estimated gradients are one function of the samples node by node, whatever the costs are: as
        where a number of the run is added to the cost."""
        try:
            with as_replicates(First()):  # what learns is the same in all runs
                (cost, *first), *others = (_alone(self._gradients, k) for k in range(1 + _RUNS))
        except Exception:  # an `if` comes out otherwise, or chance leads out of a domain
            return False
        # of runs whose costs are the same nothing is seen
        apart = any(first_difference([cost], other[:1]) is not None for other in others)
        return apart and not has_other_ways([cost]) and all(first_difference(first, o[1:]) is None for o in others)

    def _count(self, *formulas: object) -> int:
        return _RUNS if names_sources(self._again.fn, *formulas) else 1

    def _differing(
        self, record: Callable[[int], list[Node]], first: list[Node] | None, count: int, gradients: bool = False
    ) -> tuple[_Run, _Run] | None:
        """Two runs of the same samples that differ, where such are found among so many."""
        try:
            return _alone(self._unlike, record, first, count)  # type: ignore[no-any-return]
        except Exception:  # an `if` comes out otherwise, or chance leads out of a domain
            pairs = _alone(self._pairs, max(count, 2), gradients)
            return next((pair for pair in pairs if not _equal(pair[0].values, pair[1].values)), None)

    def _unlike(
        self, record: Callable[[int], list[Node]], first: list[Node] | None, count: int
    ) -> tuple[_Run, _Run] | None:
        """Replicates of the ``first`` run, or of one that is recorded, and of another one, where they differ."""
        given, first = first is not None, record(0) if first is None else first
        for k in range(1, count + 1):
            other = record(k)
            if given and first_difference(first, other) is not None and _turns(first) != _turns(other):
                given, first = False, record(0)  # nodes of a rebound graph were made in another order
            if first_difference(first, other) is not None or has_other_ways(first):
                size = min(_REPLICATES, block_of([*first, *other]))
                one, two = (_replicates(roots, k, size) for roots in (first, other))
                if not _equal(one.values, two.values):
                    return one, two
        return None

    def _costs(self, k: int) -> list[Node]:
        """The cost of the k-th run."""
        with self._streams(k) as rng:
            return [self._again.once(self._given, rng, self._bindings)[0]]  # type: ignore[list-item]

    def _estimates(self, k: int) -> list[Node]:
        """What estimators from outside add to the gradient of the k-th run."""
        with self._streams(k) as rng:
            cost, inputs = self._again.once(self._given, rng, self._bindings)
            seen = analysed(cost, min([x.id for x in inputs], default=0))  # type: ignore[arg-type]
            found = [
                extra for node, extra in expansions(seen, 1, True) if _is_outside(type(node.statics["site"].estimator))
            ]
            pulled = pull(found, [np.ones((), extra.dtype) for extra in found], inputs, create_graph=True)
            return [g for g in pulled if type(g) is Node]

    def _gradients(self, k: int) -> list[Node]:
        """The cost of the k-th run, and its estimated gradient."""
        with self._streams(k) as rng:
            cost, inputs = self._again.once(self._given, rng, self._bindings)
            loss = surrogate(cost, 1, min([x.id for x in inputs], default=0), graph=True)  # type: ignore[arg-type]
            pulled = pull([loss], [np.ones((), loss.dtype)], inputs, create_graph=True)
            return [cost, *[g for g in pulled if type(g) is Node]]  # type: ignore[list-item]

    def _pairs(self, count: int, gradients: bool) -> list[tuple[_Run, _Run]]:
        """Pairs of runs whose nodes are drawn from equal generators; with ``gradients`` all else that these give is
        equal, too, since what an estimator draws for one run need not be a node. What the function raises for these
        samples is seen where it is met: here the pairs end."""
        found: list[tuple[_Run, _Run]] = []
        for k in range(count):
            pair = []
            for j in range(2):
                try:
                    with self._streams(k if gradients else 2 * k + j, j) as rng, drawing_apart(k):
                        cost, inputs = self._again.once(self._given, rng, self._bindings)
                        values = [getattr(cost, "raw", cost), *(gradient_of(cost, inputs) if gradients else ())]
                except Exception:
                    return found
                pair.append(_Run([cost] if type(cost) is Node else [], values))
            found.append((pair[0], pair[1]))
        return found

    @contextmanager
    def _streams(self, k: int, family: int = 0) -> Iterator[np.random.Generator]:
        """A generator of the k-th stream, whose children are of a ``family``; within the block those that the function
        holds are of this stream, too."""
        held = [g.bit_generator for g in held_generators(self._again.fn) if isinstance(g, np.random.Generator)]
        before = [bits.state for bits in held]
        try:
            for bits in held:
                bits.state = type(bits)((_SEED, k)).state
            bits = np.random.PCG64((_SEED, k, family))
            bits.state = np.random.PCG64((_SEED, k)).state
            yield np.random.Generator(bits)
        finally:
            for bits, state in zip(held, before, strict=True):
                bits.state = state


def _turns(roots: list[Node]) -> list[Turn | None]:
    """Those of the random numbers behind some nodes, in the order in which replicates draw them."""
    return [turn_of(node) for node in ancestors(roots, guards=True) if is_noise(node) or is_draw(node)]


def _alone(fn: Function, *args: object) -> Result:
    """``fn(*args)`` as if nobody recorded, watched or ran a function around it."""
    context = contextvars.copy_context()
    for variable in (RECORDER, AMBIENT, WATCH, SCOPE, TAPE):
        context.run(variable.set, None)
    return context.run(fn, *args)


def _replicates(roots: list[Node], seed: int, size: int) -> _Run:
    """Recorded nodes in replicates, of the same samples for all recordings of one program."""
    with np.errstate(all="ignore"):
        return _Run(roots, resample(roots, {}, rng=np.random.default_rng(seed), size=size, create_graph=False))


def _line(first: _Run, other: _Run) -> str:
    """From where two runs differ, where that is seen."""
    node = first_difference(first.roots, other.roots)
    return "" if node is None else f", which differ from {node.line} on"


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
    rngs = _equal_generators()
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


def _equal_generators() -> tuple[np.random.Generator, np.random.Generator]:
    """Two generators that give the same numbers, and whose children do not."""
    bits = np.random.PCG64(0), np.random.PCG64(1)
    bits[1].state = bits[0].state
    return np.random.Generator(bits[0]), np.random.Generator(bits[1])


def _equal(first: list[Result], other: list[Result]) -> bool:
    return len(first) == len(other) and all(
        close(np.asarray(a), np.asarray(b)) for a, b in zip(first, other, strict=True)
    )
