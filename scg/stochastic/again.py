"""A traced function, run again: for values at which an ``if`` comes out otherwise, and where it takes numbers from a
generator itself."""

from collections.abc import Mapping

import numpy as np

from scg.core.aliases import Function, Keywords, Result, Statics, Tree
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.tree import leaves, map_leaves, rebuild
from scg.errors import ScgTypeError, here
from scg.stochastic.bindings import overridden
from scg.stochastic.estimator import Estimator
from scg.stochastic.lifting import Argnums, check_cost, check_plain, lift, run
from scg.stochastic.surrogate import surrogate
from scg.stochastic.tape import TAPE, Chosen, Program, Tape


class Again:
    """How to run the function again: for values at which an ``if`` comes out otherwise, and where it takes numbers from
    a generator itself."""

    def __init__(self, fn: Function, args: tuple[object, ...], kwargs: Keywords, argnums: Argnums):
        self.fn, self.args, self.kwargs, self.argnums = fn, args, kwargs, argnums

    def gradient(
        self,
        parameters: Tree,
        rng: np.random.Generator,
        bindings: Mapping[str, Estimator],
        chosen: Chosen | None = None,
    ) -> Tree:
        """The estimate of a run with this generator, in the structure of the parameters; with random numbers that are
        ``chosen``."""
        args, kwargs = self.arguments(parameters, rng)
        cost, inputs, structure = self._lifted(args, kwargs, bindings, chosen)
        lifted = self.program(rebuild(structure, iter(inputs)), bindings)
        token = TAPE.set(Tape(chosen))
        try:
            return rebuild(structure, iter(gradient_of(cost, inputs, lifted, chosen is not None)))
        finally:
            TAPE.reset(token)

    def recording(
        self, parameters: Tree, rng: np.random.Generator, bindings: Mapping[str, Estimator], chosen: Chosen
    ) -> tuple[Tree, Tree] | None:
        """(cost, parameters) of a run with random numbers that are ``chosen``; None where the cost is no node."""
        args, kwargs = self.arguments(parameters, rng)
        cost, inputs, structure = self._lifted(args, kwargs, bindings, chosen)
        if type(cost) is not Node:
            return None
        check_cost(cost)
        return cost, rebuild(structure, iter(inputs))

    def program(self, parameters: Tree, bindings: Mapping[str, Estimator]) -> Program:
        """How to run the function again with these nodes as parameters."""

        def again(chosen: Chosen, rng: np.random.Generator) -> Result:
            args, kwargs = self.arguments(parameters, rng) if self._held() else (self._given(parameters), self.kwargs)
            with overridden(bindings):
                return run(self.fn, args, kwargs, chosen)

        return Program(again)

    def once(
        self, parameters: Tree, rng: np.random.Generator, bindings: Mapping[str, Estimator]
    ) -> tuple[Tree, list[Node]]:
        """The cost of a run with this generator, where the function takes one, and the nodes of its parameters."""
        args, kwargs = self.arguments(parameters, rng) if self._held() else (self._given(parameters), self.kwargs)
        return self._lifted(args, kwargs, bindings)[:2]

    def _lifted(
        self, args: list[Result], kwargs: Keywords, bindings: Mapping[str, Estimator], chosen: Chosen | None = None
    ) -> tuple[Tree, list[Node], Tree]:
        with overridden(bindings):
            lifted, inputs, structure = lift(self.fn, tuple(args), self.argnums)
            return run(self.fn, lifted, kwargs, chosen), inputs, structure

    def _held(self) -> list[object]:
        """The arguments that are generators, or have one in them."""
        return [x for x in (*self.args, *self.kwargs.values()) if any(_is_generator(leaf) for _, leaf in leaves(x))]

    def _given(self, parameters: Tree) -> list[Result]:
        args = list(self.args)
        if isinstance(self.argnums, (int, np.integer)):
            args[self.argnums] = parameters
        else:
            for position, value in zip(self.argnums, parameters, strict=True):
                args[position] = value
        return args

    def arguments(self, parameters: Tree, rng: np.random.Generator) -> tuple[list[Result], Statics]:
        """The arguments with these parameters, and with ``rng`` in the place of the generator among them."""
        args, held = self._given(parameters), self._held()
        if not held:
            name = getattr(self.fn, "__name__", type(self.fn).__name__)
            raise ScgTypeError(
                f"{name} would have to run again with rng, and has no generator among its arguments: let it take"
                f" rng=... ({here()})"
            )

        def fresh(x: Tree) -> Tree:
            return map_leaves(lambda leaf: rng if _is_generator(leaf) else leaf, x) if any(x is h for h in held) else x

        return [fresh(x) for x in args], {name: fresh(x) for name, x in self.kwargs.items()}


def gradient_of(cost: Result, inputs: list[Node], program: Program | None = None, graph: bool = False) -> list[Result]:
    """The estimate of a run, by the nodes of its parameters."""
    if type(cost) is not Node:  # no parameter and no sample leads to it this time
        check_plain(cost)
        return [np.zeros(x.shape, x.dtype) for x in inputs]
    check_cost(cost)
    loss = surrogate(cost, 1, min([x.id for x in inputs], default=0), graph, program)
    return pull([loss], [np.ones((), loss.dtype)], inputs)


def _is_generator(x: object) -> bool:
    return isinstance(x, np.random.Generator)
