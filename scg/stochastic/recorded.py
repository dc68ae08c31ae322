"""A graph as its replicates see it: its gradient as nodes, whether the recorded run stands for all runs of a function,
and blocks of replicates."""

import functools
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scg.core.aliases import Result, Tree
from scg.core.ambient import RECORDER, unplanned
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.generators import held_generators, watching
from scg.core.node import Node, Value
from scg.core.tree import leaves, map_leaves, rebuild
from scg.errors import GuardError, ScgValueError, here
from scg.stochastic.costs import First, as_replicates
from scg.stochastic.estimator import Estimator
from scg.stochastic.parting import Group, Recording, parted
from scg.stochastic.pictured import Pictured
from scg.stochastic.repeatable import (
    Runs,
    estimators_from_outside,
    own_formulas,
    refuse_own_generators,
    refuse_samplers,
)
from scg.stochastic.replicates import Block, block_of, replays
from scg.stochastic.surrogate import surrogate
from scg.stochastic.tape import TAPE, Chosen, Program, Tape, Turn


class Recorded(Pictured):
    """A cost, the ``parameters`` that it is differentiated by, how its function is run ``again``, the estimators that
    were bound (``bindings``), and why some numbers are ``constants`` of this run, where they are."""

    parameters: Tree
    again: Any
    bindings: dict[str, Estimator]
    constants: str | None
    first: First  # what its replicates are held against

    if TYPE_CHECKING:  # what stands above

        def run(self, *, rng: np.random.Generator, replicates: int) -> "Recorded": ...

    def __init__(self) -> None:
        self.first = First()
        self._is_repeatable = False  # as long as nobody has looked

    @property
    def is_complete(self) -> bool:
        """Whether every random number of the traced run is a node: False where the function took numbers from a
        generator itself."""
        return self.constants is None

    def require_nodes(self, what: str) -> None:
        """Raise ScgValueError, which names ``what`` needs it, unless every random number of the traced run is a node,
        so that a replay draws it anew."""
        if self.constants is not None:
            raise ScgValueError(
                f"{what} needs a graph in which all random numbers are nodes, but {self.constants}, and a replay would"
                " repeat these numbers: draw them by scg.sample(distribution, estimator, rng=rng), rows of data by"
                f" scg.minibatch(n, size, rng=rng), or average scg.grad over fresh calls ({here()})"
            )

    @property
    def floor(self) -> int:
        """The id of the oldest parameter, where all of them are leaves, else -1."""
        return oldest([leaf for _, leaf in leaves(self.parameters)])

    def pulled(self, cost: Node, parameters: Tree, program: Program | None = None) -> Tree:
        """The gradient of a cost by the parameters of its run, in their structure; ``program`` is how to run its
        function again. In a plan, which computes it again, nodes."""
        targets, graph = [leaf for _, leaf in leaves(parameters)], RECORDER.get() is not None
        loss = surrogate(cost, 1, oldest(targets), graph=graph, program=None if graph else program)
        return rebuild(parameters, iter(pull([loss], [np.ones(loss.shape, loss.dtype)], targets, graph)))

    @cached_property
    def recorded(self) -> list[Value]:
        """The gradient as nodes, which a replay with other samples evaluates."""
        return self._recorded(None)

    def _recorded(self, program: Program | None) -> list[Value]:
        targets = [leaf for _, leaf in leaves(self.parameters)]
        token = RECORDER.set(None)  # what is recorded here belongs to the graph, and draws from its own generator
        try:
            with as_replicates(self.first), watching(surrogate, *own_formulas(self.stochastic)) as watch:
                loss = surrogate(self.cost, 1, self.floor, graph=True, program=program)
                found = pull([loss], [np.ones((), loss.dtype)], targets, create_graph=True)
        finally:
            RECORDER.reset(token)
        if watch.found is not None:
            refuse_own_generators(self.stochastic)
        return found

    @cached_property
    def runs_again(self) -> bool:
        """Whether replicates are runs of the function, one by one: where an ``if`` comes out otherwise at the values at
        which an estimator looks at the recorded cost."""
        try:
            _ = self.recorded
        except GuardError:
            if self.again is None:
                raise
            return True
        return False

    @cached_property
    def block(self) -> int:
        """How many replicates of the gradient and the cost are computed at once: memory is bounded."""
        return block_of([self.cost, *[g for g in self.recorded if type(g) is Node]])

    @cached_property
    def has_ifs(self) -> bool:
        """Whether an ``if`` on a node led to the cost, or stands in the formula of an estimator from outside."""
        formulas = self.recorded if estimators_from_outside(self.stochastic) else []
        order = ancestors([self.cost, *[g for g in formulas if type(g) is Node]], guards=True)
        seen: set[int] = set()
        return not all([guard.reads for node in order if node.guard is not None for guard in node.guard.unseen(seen)])

    def require_repeatable(self, gradients: bool = False) -> None:
        """Raise ScgValueError or EstimatorError where the traced function, an estimator or a sampler takes numbers that
        are no nodes: runs of the same samples differ, and replicates would repeat the numbers of the recorded one. With
        ``gradients`` the cost may differ, by what is added to it, where no gradient does."""
        if self._is_repeatable:
            return
        refuse_samplers(self.stochastic)
        if self.unexplained is not None and not (gradients and self._has_one_gradient):
            raise ScgValueError(
                f"{self.unexplained}, and replicates would repeat what it took: draw by scg.sample(distribution,"
                " estimator, rng=rng), or by the methods of rng itself, of which each gradient is another run"
                f" ({here()})"
            )
        if held_generators(*own_formulas(self.stochastic)):
            _ = self.recorded
        if self._runs is not None:
            self._runs.refuse_estimators(self.stochastic)
        self._is_repeatable = self.unexplained is None

    @property
    def stands_for_all(self) -> bool:
        """Whether a replay with new samples is another run of the function."""
        return self.is_complete and (RECORDER.get() is not None or self.unexplained is None)

    @cached_property
    def unexplained(self) -> str | None:
        """How other runs of the same samples differ from the recorded one; None where they do not."""
        return None if self._runs is None else self._runs.unexplained(self.cost)

    @cached_property
    def _has_one_gradient(self) -> bool:
        return self._runs is not None and self._runs.have_one_gradient()

    @property
    def _runs(self) -> Runs | None:
        """Other runs of the function, if it has to be asked of them whether the recorded one stands for all."""
        if self.again is None or not self.is_complete:
            return None
        return Runs(self.again, map_leaves(lambda node: node.value, self.parameters), self.bindings)

    def replicated(
        self, rng: np.random.Generator, replicates: int, costs: bool = False
    ) -> Iterator[tuple[int, list[Result], Result | None]]:
        """Blocks of replicates: how many, their gradients, and with ``costs`` their costs. The next block overwrites
        them. Only what depends on a sample has the leading axis, the parameters do not.

        No costs where an ``if`` comes out otherwise in some replicate: then the function runs again for each, with what
        was drawn before that ``if``, as a run that were to be made anew would not be one of all runs.
        """
        # an `if` that leads to the cost chooses a gradient too that is a number
        roots = [*[g for g in self.recorded if type(g) is Node], *[self.cost] * (costs or self.has_ifs)]
        for block in replays(roots, rng, replicates, self.block):
            yield block.size, *self._settled(block, rng, costs)

    def _settled(self, block: Block, rng: np.random.Generator, costs: bool) -> tuple[list[Result], Result | None]:
        """The gradients and the costs of a block, from runs of the function where the recording does not tell."""
        if block.values is None:
            return [leaf for _, leaf in leaves(self.each_run(rng, block.size, block.made))], None
        values = iter(block.values)
        arrays = [next(values) if type(g) is Node else g for g in self.recorded]
        # a zero may have to absorb what this recording did not meet: for the same samples
        if not all(np.isfinite(g).all() for g in arrays):
            rng.bit_generator.state = block.state
            try:
                same = self.run(rng=rng, replicates=block.size)
                with as_replicates(self.first):
                    pulled = self.pulled(np.sum(same.cost), same.parameters)
                return [leaf for _, leaf in leaves(pulled)], same.cost.value
            except GuardError:  # its terms cannot be told apart behind an ``if`` on a sample of each
                return [leaf for _, leaf in leaves(self.each_run(rng, block.size, block.made))], None
        return arrays, next(values) if costs else None

    def each_run(self, rng: np.random.Generator, size: int, made: Mapping[Turn, Result] | None = None) -> Tree:
        """``size`` gradients from runs of the function, in which what was ``made`` for each stands: from runs of their
        own, or, of those that take one way through its ``if``s, from one recording."""
        if self.again is None:
            self.require_nodes("gradients with new samples")
        unplanned("the gradients of this graph need runs of a function of their own")
        out = [np.empty((size, *x.shape), x.dtype) for _, x in leaves(self.parameters)]

        def single(chosen: Mapping[Turn, np.ndarray]) -> list[np.ndarray]:
            return [leaf for _, leaf in leaves(self.traced_again(rng, chosen))]

        group = Group(np.arange(size), made or {})
        together = self.constants is None and not estimators_from_outside(self.stochastic)
        record = functools.partial(self._recording, rng) if together else None
        known = [*self.recorded, self.cost] if together and not self.runs_again else None
        with as_replicates(self.first):
            for some, gradients in parted(group, known, rng, record, single):
                for whole, part in zip(out, gradients, strict=True):
                    whole[some.rows] = part
        return rebuild(self.parameters, iter(out))

    def _recording(self, rng: np.random.Generator, chosen: Mapping[Turn, np.ndarray]) -> Recording | None:
        """That of a run in which some random numbers are ``chosen``; None where other replicates cannot go on by it."""
        values, given = Chosen(chosen), map_leaves(lambda node: node.value, self.parameters)
        found = self.again.recording(given, rng, self.bindings, values)
        if found is None or estimators_from_outside((way := type(self)(*found)).stochastic):
            return None
        program = self.again.program(way.parameters, self.bindings)
        token = TAPE.set(Tape(values))
        try:
            gradient = way._recorded(program)
        except GuardError:
            return None
        finally:
            TAPE.reset(token)
        return None if program.alone else [*gradient, way.cost]

    def traced_again(self, rng: np.random.Generator, chosen: Mapping[Turn, np.ndarray]) -> Result:
        """The gradient of a run of its own, in which some random numbers are ``chosen``."""
        if self.again is None:
            raise GuardError(
                "an `if` on a sample came out otherwise, and the graph was not traced from a function that could be run"
                f" again ({here()})"
            )
        given = map_leaves(lambda node: node.value, self.parameters)
        return self.again.gradient(given, rng, self.bindings, Chosen(chosen))


def oldest(nodes: list[Node]) -> int:
    """The least id of leaves; -1 where one of the nodes is none, or there are none."""
    return min([node.id for node in nodes], default=-1) if not any([node.operands for node in nodes]) else -1
