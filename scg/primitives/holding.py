"""``stop_gradient``, in a cost and in an estimator's formula."""

import contextvars

from scg.core.aliases import Operand
from scg.primitives import layout

IN_FORMULA: contextvars.ContextVar[bool] = contextvars.ContextVar("scg_in_formula", default=False)
"""Whether an estimator writes its formula: what it holds constant is its own then."""


def stop_gradient(x: Operand) -> Operand:
    """The same value, held constant: its derivative is zero.

    In ``Estimator.expand`` it is a constant of the formula, as by ``scg.extend.held``: where the estimate is itself a
    value in a cost, its derivative there is that of the value.
    """
    return layout.stop_gradient(x, own=True) if IN_FORMULA.get() else layout.stop_gradient(x)
