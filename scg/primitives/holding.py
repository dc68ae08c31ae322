"""``stop_gradient``, in a cost and in an estimator's formula."""

import contextvars

from scg.core.aliases import Tree
from scg.core.node import Node
from scg.core.tree import map_leaves
from scg.primitives import layout

IN_FORMULA: contextvars.ContextVar[bool] = contextvars.ContextVar("scg_in_formula", default=False)
"""Whether an estimator writes its formula: what it holds constant is its own then."""


def stop_gradient(x: Tree) -> Tree:
    """The same value, held constant: its derivative is zero. Of a structure, such as a dict of parameters or a
    distribution, that structure with all its nodes held constant.

    In ``Estimator.expand`` it is a constant of the formula, as by ``scg.extend.held``: where the estimate is itself a
    value in a cost, its derivative there is that of the value.
    """
    if type(x) is not Node:
        return map_leaves(lambda leaf: stop_gradient(leaf) if type(leaf) is Node else leaf, x)
    return layout.stop_gradient(x, own=True) if IN_FORMULA.get() else layout.stop_gradient(x)
