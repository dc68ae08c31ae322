"""A stochastic computation graph as data: traced from a function, rebound, run again, and differentiated in
replicates."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from scg.core.aliases import Function, Result, Tree
from scg.core.ambient import RECORDER, unplanned
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.generators import held_generators, watching
from scg.core.leaves import is_parameter
from scg.core.node import Node, Value
from scg.core.operands import described, plain
from scg.core.options import integer
from scg.core.pickling import pack, unpack
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.errors import GuardError, PlanError, ScgTypeError, ScgValueError, here
from scg.stochastic.again import Again
from scg.stochastic.bindings import bound_to, overridden
from scg.stochastic.costs import First, as_replicates
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.lifting import check_cost, lift, refuse_finished, run
from scg.stochastic.names import named, new_parameter, possible, refuse_no_estimators, stochastic_node
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
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw, is_stochastic
from scg.stochastic.surrogate import surrogate
from scg.stochastic.tape import TAPE, Chosen, Program, Tape, Turn


def trace(fn: Function, *args: object, argnums: int | Sequence[int] = 0, **kwargs: object) -> "Graph":
    """The graph of one run of ``fn``, a function that returns its cost; the arguments ``argnums`` become its
    parameters.

    Where ``fn`` takes numbers from a generator itself (``rng.integers(3)``), they are constants of this graph:
    ``gradients`` then runs ``fn`` again for each gradient, and what would replay the graph refuses. Draw by
    ``scg.sample`` or ``scg.minibatch`` instead. Before the graph is replayed ``fn`` runs once more, with another
    generator: where the cost is no function of the samples (numbers of a copy of ``rng``, a state that changes),
    replicates refuse, and single runs trace ``fn`` anew.
    """
    lifted, inputs, structure = lift(fn, args, argnums)
    positions = (argnums,) if isinstance(argnums, (int, np.integer)) else tuple(argnums)
    with watching(fn, args, kwargs) as watch:
        tape = TAPE.get()
        if tape is not None and tape.chosen is not None and tape.chosen.some:
            raise GuardError(
                "an `if` comes out otherwise at other values of a sample, and the function that is run again for them"
                f" traces another one: trace that outside of it ({here()})"
            )
        cost = run(fn, lifted, kwargs, Chosen({}))
    if type(cost) is not Node:
        raise ScgTypeError(
            f"the traced function returned {type(cost).__name__}, which depends neither on its parameters nor on a"
            f" sample ({here()})"
        )
    check_cost(cost)
    refuse_finished(cost, min([x.id for x in inputs], default=0))
    parameters = lifted[argnums] if isinstance(argnums, (int, np.integer)) else tuple([lifted[p] for p in positions])
    return Graph(cost, parameters, again=Again(fn, args, kwargs, argnums), constants=watch.found)


class Graph(Pictured):
    """A cost, the parameters that it is differentiated by, and the samples between them.

    ``cost``        the node of the cost
    ``parameters``  the nodes of the parameters, in the structure in which they were given
    ``stochastic``  the stochastic nodes by name; one without a name is called by its distribution, ``bernoulli``,
                    ``bernoulli_1``, ...
    """

    def __init__(
        self,
        cost: Node,
        parameters: Tree = None,
        *,
        again: Any = None,
        bindings: Mapping[str, Estimator] | None = None,
        constants: str | None = None,
    ):
        if type(cost) is not Node:
            raise ScgTypeError(f"a graph needs a node as its cost, got {type(cost).__name__} ({here()})")
        for path, leaf in leaves(parameters):
            if type(leaf) is not Node:
                raise ScgTypeError(
                    f"a graph's parameters are nodes, got {described((leaf,))} at parameters{path}: write"
                    f" scg.parameter(array), or scg.trace(fn, array) ({here()})"
                )
        order = ancestors([cost], guards=True)
        self.cost = cost
        self.parameters = [n for n in order if is_parameter(n)] if parameters is None else parameters
        self.stochastic = named([node for node in order if is_stochastic(node)])
        self.again, self.bindings, self._constants = again, dict(bindings or {}), constants
        self._is_repeatable = False  # as long as nobody has looked
        self.first = First()  # what its replicates are held against

    @property
    def is_complete(self) -> bool:
        """Whether every random number of the traced run is a node: False where the function took numbers from a
        generator itself."""
        return self._constants is None

    def require_nodes(self, what: str) -> None:
        """Raise ScgValueError, which names ``what`` needs it, unless every random number of the traced run is a node,
        so that a replay draws it anew."""
        if self._constants is not None:
            raise ScgValueError(
                f"{what} needs a graph in which all random numbers are nodes, but {self._constants}, and a replay would"
                " repeat these numbers: draw them by scg.sample(distribution, estimator, rng=rng), rows of data by"
                f" scg.minibatch(n, size, rng=rng), or average scg.grad over fresh calls ({here()})"
            )

    def bind(self, estimators: Mapping[str, Estimator] | None = None, /, **named: Estimator) -> "Graph":
        """The same graph with other estimators on some of its stochastic nodes; the model, and the distribution of
        every value, stay.

        A key is a name, or a pattern as for file names: ``{"a*": estimator}``, ``{"*": estimator}`` for all nodes that
        a gradient passes. A name goes before patterns, and a later pattern before an earlier one. Raises ScgValueError
        for a key that names no node, EstimatorError for an estimator that is not valid for its node.
        """
        wanted = refuse_no_estimators(estimators, named)
        self._refuse_ifs_in_a_plan()
        for name in wanted:
            if not any([fnmatchcase(known, name) for known in self.stochastic]):
                stochastic_node(self.stochastic, name, self.cost)
        found = {}
        for name, node in self.stochastic.items():
            site = node.statics["site"]
            own = type(site.estimator) is Accounted  # an estimator's, unless it is named
            chosen = bound_to(name, wanted) if name in wanted or not own else None
            if chosen is not None:
                chosen.check(site.distribution, name)
                site.check_coupling(chosen)
                found[name] = chosen
        cost = resample(
            self.cost, {}, bindings={self.stochastic[name].id: estimator for name, estimator in found.items()}
        )
        kept = {name: estimator for name, estimator in self.bindings.items() if name not in wanted}
        return self._as_known(
            Graph(
                cost, self.parameters, again=self.again, bindings={**kept, **wanted, **found}, constants=self._constants
            )
        )

    def surrogate(self, order: int | None = None) -> Node:
        """The surrogate loss: exactly the cost's value, derivatives of any order (or up to ``order``) that estimate
        those of its expectation."""
        return surrogate(self.cost, order)

    def run(
        self,
        *,
        rng: np.random.Generator | None = None,
        parameters: Tree = None,
        values: Mapping[str, object] | None = None,
        replicates: int | None = None,
    ) -> "Graph":
        """The graph run again: with new samples from ``rng``, other values of the parameters, given ``values`` of some
        stochastic nodes.

        With ``replicates=R`` every node has a leading axis of R independent runs, the parameters too; ``values`` then
        have it as well. Raises GuardError where an ``if`` on a node would have come out otherwise; replicates behind an
        ``if`` on a sample have values, and their gradients by ``gradients(rng=, replicates=)``. A function that
        takes numbers that are no nodes is traced again for new samples; ``replicates`` and ``values`` of such a graph
        raise ScgValueError.
        """
        if replicates is not None:
            integer("replicates", replicates, 1)
        if replicates is not None and rng is None and values is None:
            raise ScgTypeError(f"replicates need rng=np.random.default_rng(seed) ({here()})")
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise ScgTypeError(f"new samples need rng=np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
        if rng is not None and not self._replays:
            if self.again is None or replicates is not None or values:
                self.require_nodes("Graph.run with new samples")
                self.require_repeatable()
            return self._fresh(rng, parameters)
        if values is not None and not isinstance(values, Mapping):
            raise ScgTypeError(
                f"values needs a mapping of names to values, got {described((values,))}: write {{'b': array}}"
                f" ({here()})"
            )
        return self._ran(rng, parameters, values, replicates)

    def _ran(
        self,
        rng: np.random.Generator | None,
        parameters: Tree = None,
        values: Mapping[str, object] | None = None,
        replicates: int | None = None,
        made: dict[Turn, Result] | None = None,
    ) -> "Graph":
        """``run``, where what is asked for is good; what is drawn enters ``made``."""
        nodes = [leaf for _, leaf in leaves(self.parameters)]
        given = nodes if parameters is None else leaves_like(self.parameters, parameters, "parameters")
        new = [new_parameter(node, leaf, replicates) for node, leaf in zip(nodes, given, strict=True)]
        replaced: dict[Node, Result] = dict(zip(nodes, new, strict=True))
        given_values = {}
        for name, number in (values or {}).items():
            node = stochastic_node(self.stochastic, name, self.cost)
            if not is_draw(node):
                raise ScgTypeError(
                    f"{name} is a function of its noise: replace that with scg.replay, or bind another estimator"
                    f" ({here()})"
                )
            given_values[node.id] = possible(name, node, number)
        batched = list(replaced) if replicates is not None else []
        cost = resample(
            self.cost, replaced, batched, rng=rng, size=replicates, values=given_values, checked=True, made=made
        )
        return self._as_known(
            Graph(
                cost,
                rebuild(self.parameters, iter(new)),
                again=self.again if replicates is None else None,
                bindings=self.bindings,
                constants=self._constants,
            )
        )

    def _as_known(self, graph: "Graph") -> "Graph":
        """A graph of the same function, which need not be run once more for it."""
        if "_unexplained" in vars(self):
            graph._unexplained = self._unexplained
        return graph

    def gradients(self, *, rng: np.random.Generator | None = None, replicates: int | None = None) -> Tree:
        """The gradient of the expected cost as the bound estimators estimate it, in the structure of the parameters.

        Without ``rng`` from the recorded samples; with it from new ones; with ``replicates=R`` from R independent runs
        at once, each leaf with a leading axis of R. Memory is bounded: replicates are computed in blocks. Where an
        ``if`` on a sample comes out otherwise the function is traced again.
        """
        if replicates is None:
            if rng is not None:
                self._refuse_ifs_in_a_plan()
            if rng is None:
                program = None if self.again is None else self.again.program(self.parameters, self.bindings)
                return self.pulled(self.cost, self.parameters, program)
            if not isinstance(rng, np.random.Generator) or not self._replays:
                return self.run(rng=rng).gradients()
            made: dict[Turn, Result] = {}
            try:
                graph = self._ran(rng, made=made)
            except GuardError:
                return self._traced(rng, {turn: value for turn, (value, _) in made.items()})
            return graph.gradients()
        integer("replicates", replicates, 1)
        if not isinstance(rng, np.random.Generator):
            raise ScgTypeError(f"replicates need rng=np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
        if self._constants is not None:
            return self._each(rng, replicates)
        if RECORDER.get() is not None:  # in a plan, which has buffers of its own, all replicates are one block
            self._refuse_ifs_in_a_plan()
            try:
                found = self.recorded
                new = iter(resample([g for g in found if type(g) is Node], {}, rng=rng, size=replicates))
            except PlanError:
                kinds = sorted({type(n.statics["site"].estimator).__name__ for n in self.stochastic.values()})
                unplanned(
                    f"{' or '.join(kinds)} draws numbers of its own for replicates, which are no nodes: compile"
                    " graph.gradients(rng=rng) and call it for each replicate, or take replicates without scg.compile"
                )
                raise
            return rebuild(
                self.parameters,
                (next(new) if type(g) is Node else np.broadcast_to(g, (replicates, *g.shape)) for g in found),
            )
        self.require_repeatable(gradients=True)
        if self.runs_again:
            return self._each(rng, replicates)
        out = [np.empty((replicates, *x.shape), x.dtype) for _, x in leaves(self.parameters)]
        start = 0
        for size, arrays, _ in self.replicated(rng, replicates):
            for whole, part in zip(out, arrays, strict=True):
                whole[start : start + size] = part
            start += size
        return rebuild(self.parameters, iter(out))

    @property
    def floor(self) -> int:
        """The id of the oldest parameter, where all of them are leaves, else -1."""
        return oldest([leaf for _, leaf in leaves(self.parameters)])

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

    def _refuse_ifs_in_a_plan(self) -> None:
        """Raise PlanError where a plan is made, and an ``if`` on a sample led to the cost."""
        if RECORDER.get() is None:
            return
        seen: set[int] = set()
        for guard in [g for n in self.nodes if n.guard is not None for g in n.guard.unseen(seen)]:
            if not guard.reads and any([is_stochastic(n) for n in ancestors([guard.node])]):
                unplanned(
                    f"a graph that is run again may go another way through the `if` at {guard.line}, and a plan has the"
                    " one that was recorded: give each sample its estimator in scg.sample and compile"
                    " scg.value_and_grad(function), or write the choice with np.where"
                )

    def require_repeatable(self, gradients: bool = False) -> None:
        """Raise ScgValueError or EstimatorError where the traced function, an estimator or a sampler takes numbers that
        are no nodes: runs of the same samples differ, and replicates would repeat the numbers of the recorded one. With
        ``gradients`` the cost may differ, by what is added to it, where no gradient does."""
        if self._is_repeatable:
            return
        refuse_samplers(self.stochastic)
        if self._unexplained is not None and not (gradients and self._has_one_gradient):
            raise ScgValueError(
                f"{self._unexplained}, and replicates would repeat what it took: draw by scg.sample(distribution,"
                " estimator, rng=rng), or by the methods of rng itself, of which each gradient is another run"
                f" ({here()})"
            )
        if held_generators(*own_formulas(self.stochastic)):
            _ = self.recorded
        if self._runs is not None:
            self._runs.refuse_estimators(self.stochastic)
        self._is_repeatable = self._unexplained is None

    @property
    def _runs(self) -> Runs | None:
        """Other runs of the function, if it has to be asked of them whether the recorded one stands for all."""
        if self.again is None or not self.is_complete:
            return None
        return Runs(self.again, map_leaves(lambda node: node.value, self.parameters), self.bindings)

    @property
    def _replays(self) -> bool:
        """Whether a replay with new samples is another run of the function."""
        return self.is_complete and (RECORDER.get() is not None or self._unexplained is None)

    @cached_property
    def _has_one_gradient(self) -> bool:
        return self._runs is not None and self._runs.have_one_gradient()

    @cached_property
    def _unexplained(self) -> str | None:
        """How other runs of the same samples differ from the recorded one; None where they do not."""
        return None if self._runs is None else self._runs.unexplained(self.cost)

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
            return [leaf for _, leaf in leaves(self._each(rng, block.size, block.made))], None
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
                return [leaf for _, leaf in leaves(self._each(rng, block.size, block.made))], None
        return arrays, next(values) if costs else None

    def __repr__(self) -> str:
        return (
            f"<Graph of {len(self.nodes)} nodes, cost {self.cost.raw:.6g}:"
            f" {', '.join(repr(n.statics['site']) for n in self.stochastic.values()) or 'no samples'}>"
        )

    def pulled(self, cost: Node, parameters: Tree, program: Program | None = None) -> Tree:
        """The gradient of a cost by the parameters of its run, in their structure; ``program`` is how to run its
        function again. In a plan, which computes it again, nodes."""
        targets, graph = [leaf for _, leaf in leaves(parameters)], RECORDER.get() is not None
        loss = surrogate(cost, 1, oldest(targets), graph=graph, program=None if graph else program)
        return rebuild(parameters, iter(pull([loss], [np.ones(loss.shape, loss.dtype)], targets, graph)))

    def _each(self, rng: np.random.Generator, size: int, made: Mapping[Turn, Result] | None = None) -> Tree:
        """``size`` gradients from runs of the function, in which what was ``made`` for each stands: from runs of their
        own, or, of those that take one way through its ``if``s, from one recording."""
        if self.again is None:
            self.require_nodes("gradients with new samples")
        unplanned("the gradients of this graph need runs of a function of their own")
        out = [np.empty((size, *x.shape), x.dtype) for _, x in leaves(self.parameters)]

        def single(chosen: Mapping[Turn, np.ndarray]) -> list[np.ndarray]:
            return [leaf for _, leaf in leaves(self._traced(rng, chosen))]

        group = Group(np.arange(size), made or {})
        together = self._constants is None and not estimators_from_outside(self.stochastic)
        record = functools.partial(self._recording, rng) if together else None
        known = [*self.recorded, self.cost] if together and not self.runs_again else None
        with as_replicates(self.first):
            for some, gradients in parted(group, known, rng, record, single):
                for whole, part in zip(out, gradients, strict=True):
                    whole[some.rows] = part
        return rebuild(self.parameters, iter(out))

    def _fresh(self, rng: np.random.Generator, parameters: Tree) -> "Graph":
        given = map_leaves(lambda node: node.value, self.parameters)
        if parameters is not None:
            pairs = zip(leaves_like(self.parameters, parameters, "parameters"), leaves(given), strict=True)
            each = [np.broadcast_to(np.asarray(plain(x, "parameters"), y.dtype), y.shape) for x, (_, y) in pairs]
            given = rebuild(given, iter(each))
        args, kwargs = self.again.arguments(given, rng)
        with overridden(self.bindings):
            graph = trace(self.again.fn, *args, argnums=self.again.argnums, **kwargs)
        graph.bindings = dict(self.bindings)
        return graph

    def _recording(self, rng: np.random.Generator, chosen: Mapping[Turn, np.ndarray]) -> Recording | None:
        """That of a run in which some random numbers are ``chosen``; None where other replicates cannot go on by it."""
        values, given = Chosen(chosen), map_leaves(lambda node: node.value, self.parameters)
        found = self.again.recording(given, rng, self.bindings, values)
        if found is None or estimators_from_outside((way := Graph(*found)).stochastic):
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

    def _traced(self, rng: np.random.Generator, chosen: Mapping[Turn, np.ndarray]) -> Result:
        if self.again is None:
            raise GuardError(
                "an `if` on a sample came out otherwise, and the graph was not traced from a function that could be run"
                f" again ({here()})"
            )
        given = map_leaves(lambda node: node.value, self.parameters)
        return self.again.gradient(given, rng, self.bindings, Chosen(chosen))

    def __reduce__(self) -> tuple[object, ...]:
        targets = [leaf for _, leaf in leaves(self.parameters)]
        places = rebuild(self.parameters, iter([0] * len(targets)))
        # a lambda cannot travel, and need not where no function has to run again
        again = self.again if self._constants is not None or self.has_ifs else None
        return _restored, (*pack([self.cost, *targets]), places, again, self.bindings, self._constants)


def oldest(nodes: list[Node]) -> int:
    """The least id of leaves; -1 where one of the nodes is none, or there are none."""
    return min([node.id for node in nodes], default=-1) if not any([node.operands for node in nodes]) else -1


def _restored(
    rows: Any, places: list[int], parameters: Tree, again: Any, bindings: Any, constants: str | None = None
) -> Graph:
    cost, *nodes = unpack(rows, places)
    return Graph(cost, rebuild(parameters, iter(nodes)), again=again, bindings=bindings, constants=constants)
