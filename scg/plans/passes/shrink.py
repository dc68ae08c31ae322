"""Maps and sums of broadcast arrays computed before the broadcast: the same numbers, once each."""

import math
from collections.abc import Callable

import numpy as np

from scg.plans.kernels import is_elementwise, view
from scg.plans.program import Op, Operations
from scg.primitives import layout, reduction


def shrink(program: Operations) -> int:
    """f(broadcast(x)) = broadcast(f(x)); a sum over axes along which x is not stretched likewise."""
    return program.rewrite(_changed)


def _changed(op: Op, add: Callable[[Op], Op]) -> Op | None:
    if op.primitive is reduction.sum_p and _is_broadcast(op.args[0]):
        return _sum(op, add)
    if not is_elementwise(op) or op.is_leaf or view(op) is not None or not any(map(_is_broadcast, op.args)):
        return None
    inner = [a.args[0] if _is_broadcast(a) else a for a in op.args]
    shape = np.broadcast_shapes(*[a.shape if type(a) is Op else np.shape(a) for a in inner])
    shape = (1,) * (len(op.shape) - len(shape)) + shape
    if math.prod(shape) >= op.size:
        return None
    longest = max([len(a.shape if type(a) is Op else np.shape(a)) for a in inner])
    if longest < len(shape):  # an axis of length one in front is missing everywhere
        k = next(k for k, a in enumerate(inner) if type(a) is Op)
        longer = (1,) * (len(shape) - len(inner[k].shape)) + inner[k].shape
        inner[k] = add(Op(layout.reshape_p, (inner[k],), {"shape": longer}, longer, inner[k].dtype))
    small = add(Op(op.primitive, inner, op.statics, shape, op.dtype, op.line))
    return add(Op(layout.broadcast_to_p, (small,), {"shape": op.shape}, op.shape, op.dtype, op.line))


def _sum(op: Op, add: Callable[[Op], Op]) -> Op | None:
    x, full = op.args[0].args[0], op.args[0].shape
    axis = op.statics["axis"]
    if len(x.shape) != len(full) or axis is None or x.shape == full:
        return None
    axes = [a % len(full) for a in axis]
    if any([x.shape[a] != full[a] for a in axes]):
        return None
    shape = tuple([1 if a in axes else n for a, n in enumerate(x.shape) if op.statics["keepdims"] or a not in axes])
    small = add(Op(op.primitive, (x,), op.statics, shape, op.dtype, op.line))
    return add(Op(layout.broadcast_to_p, (small,), {"shape": op.shape}, op.shape, op.dtype, op.line))


def _is_broadcast(x: object) -> bool:
    return type(x) is Op and x.primitive is layout.broadcast_to_p and type(x.args[0]) is Op
