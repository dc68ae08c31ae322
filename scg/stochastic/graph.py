"""A stochastic computation graph as data: traced from a function, rebound, run again, and differentiated in
replicates."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from scg.core.aliases import Function, Result, Tree
from scg.core.ambient import RECORDER, unplanned
from scg.core.ancestry import ancestors
from scg.core.generators import watching
from scg.core.leaves import is_parameter
from scg.core.node import Node
from scg.core.operands import described, plain
from scg.core.options import integer
from scg.core.pickling import pack, unpack
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.errors import GuardError, PlanError, ScgTypeError, here
from scg.stochastic.again import Again
from scg.stochastic.bindings import bound_to, overridden
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.lifting import check_cost, lift, refuse_finished, run
from scg.stochastic.names import named, new_parameter, possible, refuse_no_estimators, stochastic_node
from scg.stochastic.recorded import Recorded
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw, is_stochastic
from scg.stochastic.surrogate import surrogate
from scg.stochastic.tape import TAPE, Chosen, Turn


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


class Graph(Recorded):
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
        super().__init__()
        order = ancestors([cost], guards=True)
        self.cost = cost
        self.parameters = [n for n in order if is_parameter(n)] if parameters is None else parameters
        self.stochastic = named([node for node in order if is_stochastic(node)])
        self.again, self.bindings, self.constants = again, dict(bindings or {}), constants

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
                cost, self.parameters, again=self.again, bindings={**kept, **wanted, **found}, constants=self.constants
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
        if rng is not None and not self.stands_for_all:
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
                constants=self.constants,
            )
        )

    def _as_known(self, graph: "Graph") -> "Graph":
        """A graph of the same function, which need not be run once more for it."""
        if "unexplained" in vars(self):
            graph.unexplained = self.unexplained
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
            if not isinstance(rng, np.random.Generator) or not self.stands_for_all:
                return self.run(rng=rng).gradients()
            made: dict[Turn, Result] = {}
            try:
                graph = self._ran(rng, made=made)
            except GuardError:
                return self.traced_again(rng, {turn: value for turn, (value, _) in made.items()})
            return graph.gradients()
        integer("replicates", replicates, 1)
        if not isinstance(rng, np.random.Generator):
            raise ScgTypeError(f"replicates need rng=np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
        if self.constants is not None:
            return self.each_run(rng, replicates)
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
            return self.each_run(rng, replicates)
        out = [np.empty((replicates, *x.shape), x.dtype) for _, x in leaves(self.parameters)]
        start = 0
        for size, arrays, _ in self.replicated(rng, replicates):
            for whole, part in zip(out, arrays, strict=True):
                whole[start : start + size] = part
            start += size
        return rebuild(self.parameters, iter(out))

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

    def __repr__(self) -> str:
        return (
            f"<Graph of {len(self.nodes)} nodes, cost {self.cost.raw:.6g}:"
            f" {', '.join(repr(n.statics['site']) for n in self.stochastic.values()) or 'no samples'}>"
        )

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

    def __reduce__(self) -> tuple[object, ...]:
        targets = [leaf for _, leaf in leaves(self.parameters)]
        places = rebuild(self.parameters, iter([0] * len(targets)))
        # a lambda cannot travel, and need not where no function has to run again
        again = self.again if self.constants is not None or self.has_ifs else None
        return _restored, (*pack([self.cost, *targets]), places, again, self.bindings, self.constants)


def _restored(
    rows: Any, places: list[int], parameters: Tree, again: Any, bindings: Any, constants: str | None = None
) -> Graph:
    cost, *nodes = unpack(rows, places)
    return Graph(cost, rebuild(parameters, iter(nodes)), again=again, bindings=bindings, constants=constants)
