"""A traced function, run again: for values at which an ``if`` comes out otherwise, and where it takes numbers from a
generator itself."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scg.core.aliases import Function, Keywords, Result, Statics, Tree
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.tree import leaves, map_leaves, rebuild
from scg.errors import ScgTypeError, here
from scg.stochastic.estimator import Estimator
from scg.stochastic.lifting import check_cost, check_plain, lift, run
from scg.stochastic.sites import overridden
from scg.stochastic.surrogate import surrogate


class Again:
    """How to run the function again: for values at which an ``if`` comes out otherwise, and where it takes numbers from
    a generator itself."""

    def __init__(self, fn: Function, args: tuple[object, ...], kwargs: Keywords, argnums: Any):
        self.fn, self.args, self.kwargs, self.argnums = fn, args, kwargs, argnums

    def gradient(self, parameters: Tree, rng: np.random.Generator, bindings: Mapping[str, Estimator]) -> Tree:
        args, kwargs = self.arguments(parameters, rng)
        with overridden(bindings):
            lifted, inputs, structure = lift(self.fn, tuple(args), self.argnums)
            cost = run(self.fn, lifted, kwargs)
        if type(cost) is not Node:  # no parameter and no sample leads to it this time
            check_plain(cost)
            return rebuild(structure, (np.zeros(x.shape, x.dtype) for x in inputs))
        check_cost(cost)
        loss = surrogate(cost, 1, min([x.id for x in inputs], default=0))
        return rebuild(structure, iter(pull([loss], [np.ones((), loss.dtype)], inputs)))

    def arguments(self, parameters: Tree, rng: np.random.Generator) -> tuple[list[Result], Statics]:
        """The arguments with these parameters, and with ``rng`` in the place of the generator among them."""
        args = list(self.args)
        if isinstance(self.argnums, (int, np.integer)):
            args[self.argnums] = parameters
        else:
            for position, value in zip(self.argnums, parameters, strict=True):
                args[position] = value

        held = [x for x in (*args, *self.kwargs.values()) if any(_is_generator(leaf) for _, leaf in leaves(x))]
        if not held:
            name = getattr(self.fn, "__name__", type(self.fn).__name__)
            raise ScgTypeError(
                f"{name} would have to run again with rng, and has no generator among its arguments: let it take"
                f" rng=... ({here()})"
            )

        def fresh(x: Tree) -> Tree:
            return map_leaves(lambda leaf: rng if _is_generator(leaf) else leaf, x) if any(x is h for h in held) else x

        return [fresh(x) for x in args], {name: fresh(x) for name, x in self.kwargs.items()}


def _is_generator(x: object) -> bool:
    return isinstance(x, np.random.Generator)
