"""Quantiles by inverting a CDF numerically, and their derivatives by the implicit function theorem.

F(z; t) = u at fixed u gives

    dz/du = 1 / p(z),    dz/dt = -(dF/dt) / p(z)

(Figurnov, Mohamed and Mnih, 2018). With u uniform on (0, 1), z is a sample, and both are its pathwise derivatives. The
noise u is a leaf of its own: a replay with other parameters moves z, one with a replicate axis gives each replicate
what it would have had alone, and noise can be integrated over.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from scg.core.aliases import Result, Shape
from scg.core.ambient import RECORDER, settled
from scg.core.ancestry import ancestors
from scg.core.axes import AxisMap, broadcast_axes, labelled, padded
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, Numeric, Value
from scg.core.primitive import smooth_primitive
from scg.core.replay import replay

if TYPE_CHECKING:
    from scg.distributions.base import Distribution


_SEVERAL = 64  # probabilities, among which equal ones are looked for


def quantile(distribution: "Distribution", probability: Numeric) -> Value:
    """The z with ``distribution.cdf(z) == probability``, for a continuous scalar distribution; as often differentiable
    as its cdf and log_prob are."""
    nodes = {name: p for name, p in distribution.parameters.items() if type(p) is Node}
    return _quantile(probability, *nodes.values(), distribution=distribution.detached(), names=tuple(nodes))


class Inverted(AxisMap):
    """The probability is elementwise; parameters follow it batch element by batch element, and their event axes are
    mixed."""

    def lead(self, operands, batched, statics):  # type: ignore[no-untyped-def]
        events = [0, *map(statics["distribution"].parameter_event_ndim, statics["names"])]
        rank = max(np.ndim(o) - b - e for o, b, e in zip(operands, batched, events, strict=True))
        rank = max(rank, len(statics["distribution"].batch_shape))
        return (
            tuple([padded(o, rank + e) if b else o for o, b, e in zip(operands, batched, events, strict=True)]),
            statics,
        )

    def align(self, shapes, out, statics):  # type: ignore[no-untyped-def]
        ins = [broadcast_axes(shapes[0], out)]
        for i, (shape, name) in enumerate(zip(shapes[1:], statics["names"], strict=True)):
            batch = max(len(shape) - statics["distribution"].parameter_event_ndim(name), 0)
            ins.append(broadcast_axes(shape[:batch], out) + labelled(i, shape[batch:]))
        return labelled("out", out), tuple(ins)


def _value(u: Value, *parameters: Value, distribution: "Distribution", names: tuple[str, ...]) -> Value:
    wide = {**distribution.parameters, **dict(zip(names, parameters, strict=True))}
    exact = distribution.replaced(**{name: np.asarray(p, float) for name, p in wide.items()})
    dtype = np.result_type(u, *wide.values())
    with np.errstate(all="ignore"):
        return _inverted(exact, np.asarray(u, float)).astype(dtype if dtype.kind == "f" else float)[()]


def _vjp(
    g: Value, i: int, out: Value, u: Value, *parameters: Value, distribution: "Distribution", names: tuple[str, ...]
) -> Value:
    given = distribution.replaced(**dict(zip(names, parameters, strict=True)))
    share = g / np.exp(given.log_prob(out))
    return share if i == 0 else _slope(-share, out, parameters, distribution, names, i - 1)


_quantile = smooth_primitive(_value, Inverted(), every=_vjp, name="quantile")


def _slope(
    weight: Value, z: Value, parameters: tuple[Value, ...], distribution: "Distribution", names: tuple[str, ...], k: int
) -> Value:
    """sum(weight * dF(z; t)/dt_k) at fixed z. As a function of Nodes it is recorded on leaves of its own, and these are
    then replaced."""
    inputs = (weight, z, *parameters)
    if not any(type(x) is Node for x in inputs):
        by = parameter(parameters[k])
        F: Result = distribution.replaced(**{**dict(zip(names, parameters, strict=True)), names[k]: by}).cdf(z)
        if type(F) is not Node:
            return np.zeros(())
        found: Value = pull([F], [np.broadcast_to(weight, F.shape).astype(F.dtype)], [by])[0]
        return found
    leaves = [parameter(x.raw if type(x) is Node else np.asarray(x, float)) for x in inputs]
    F = distribution.replaced(**dict(zip(names, leaves[2:], strict=True))).cdf(leaves[1])
    found = pull([F], [np.broadcast_to(leaves[0].astype(F.dtype), F.shape)], [leaves[2 + k]], create_graph=True)[0]
    return replay(found, dict(zip(leaves, inputs, strict=True))) if type(found) is Node else found


def _inverted(distribution: "Distribution", u: Value) -> Value:
    """Newton's method in a bracket, element by element: what has converged stays, so that no element's result depends
    on the others'."""
    shape = np.broadcast_shapes(u.shape, distribution.batch_shape)
    if u.size > _SEVERAL and all([np.size(p) == 1 for p in distribution.parameters.values()]):
        each, place = np.unique(u, return_inverse=True)
        if 2 * each.size < u.size:  # those of a quadrature rule come again and again
            return np.reshape(_inverted(distribution, each).reshape(-1)[place], shape)
    u = np.broadcast_to(u, shape).ravel()
    rows = {
        name: _rows(p, shape, distribution.parameter_event_ndim(name)) for name, p in distribution.parameters.items()
    }
    left = np.flatnonzero((u > 0) & (u < 1))
    ends = [np.broadcast_to(end, shape).ravel() for end in (distribution.support.low, distribution.support.high)]
    z = np.where(u == 0, ends[0], np.where(u == 1, ends[1], math.nan))
    if not left.size:
        return z.reshape(shape)
    some = distribution.replaced(**{name: p[left] for name, p in rows.items()})
    low, high = bracket(some, u[left])
    at, before = 0.5 * (low + high), np.inf
    for _ in range(300):
        target, F = u[left], some.cdf(at)
        low, high = np.where(F < target, at, low), np.where(F < target, high, at)
        new, middle = at - (F - target) / np.exp(some.log_prob(at)), 0.5 * (low + high)
        gap = np.abs(F - target)
        near = gap <= 1e-13 * np.where(target > 0.01, 1, target)  # in a lower tail F may be accurate, relatively
        still = np.abs(new - at) <= 4e-16 * np.abs(new)  # converged if it is near; else the density is infinite
        kept = (new >= low) & (new <= high)
        there = (gap == 0) | near & (still | ~kept | (gap >= 0.5 * before))  # what is left is rounding
        new = np.where(kept & (near | ~still & (gap <= 0.5 * before)), new, middle)
        go = ~(there | (middle == low) | (middle == high))
        at = z[left] = np.where(there, at, new)
        if not go.any():
            break
        left, low, high, at, before = left[go], low[go], high[go], at[go], gap[go]
        some = distribution.replaced(**{name: p[left] for name, p in rows.items()})
    return z.reshape(shape)


def moves_at(p: Node, ends: tuple[float, ...], order: int = 1) -> bool:
    """Whether elements of ``p`` that are at one of ``ends`` have a derivative of this order, 1 or 2, in what ``p`` is
    made of: softmax(-inf) is 0, and stays 0; t^2 has the second at t = 0."""
    if not settled(lambda value: any([np.any(value == end) for end in ends]), p):
        return False
    # a question about values: no plan repeats it, and the one above asks whether it comes up
    token = RECORDER.set(None)
    try:
        roots = [
            node
            for node in ancestors([p])
            if node.dtype.kind == "f" and not any([type(o) is Node for o in node.operands])
        ]
        cotangent = np.where(np.isin(p.raw, ends), _uneven(p), 0).astype(p.dtype)
        found = pull([p], [cotangent], roots, order > 1)
        if order > 1:
            slopes = [g for g in found if type(g) is Node]
            found = pull(slopes, [_uneven(g) for g in slopes], roots) if slopes else []
        return any([np.any((g != 0) & (g == g)) if order > 1 else np.any(g) for g in found])
    finally:
        RECORDER.reset(token)


def _uneven(x: Result) -> np.ndarray:
    """Weights of the shape and dtype of ``x`` that no symmetry cancels."""
    return np.asarray(np.cos(np.arange(1.0, x.size + 1)).reshape(x.shape).astype(x.dtype))


def _rows(p: Result, shape: Shape, event_ndim: int) -> Value:
    """A parameter with one row for each element of ``shape``."""
    p = p.reshape((1,) * (event_ndim - p.ndim) + p.shape)
    return np.broadcast_to(p, shape + p.shape[p.ndim - event_ndim :]).reshape(-1, *p.shape[p.ndim - event_ndim :])


def bracket(distribution: "Distribution", u: Value) -> tuple[Value, Value]:
    """Ends between which the quantiles lie: the support's, and where it has none, powers of two that grow until they
    are."""
    known: tuple[Value, Value] | None = getattr(distribution, "bracket", lambda u: None)(u)
    if known is not None:
        return known
    low, high = distribution.support.low, distribution.support.high
    open_low, open_high = ~np.isfinite(low + 0 * u), ~np.isfinite(high + 0 * u)
    left = np.where(open_low, np.where(open_high, 0, high) - 1.0, low)
    right = np.where(open_high, np.where(open_low, 0, low) + 1.0, high)
    for power in range(1, 1020):
        below, above = open_low & (distribution.cdf(left) > u), open_high & (distribution.cdf(right) < u)
        if not (below.any() or above.any()):
            break
        left, right = np.where(below, left - 2.0**power, left), np.where(above, right + 2.0**power, right)
    return left, right
