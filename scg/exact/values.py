"""The function of samples and parameters that a node is: what stands in a graph for the sake of derivatives alone,
taken out.

The truth about E[c] is about the values of c: sum_z p(z; t) c(z; t) is differentiated as a sum of numbers. A box is the
number one there, ``first_order`` the number zero, ``stop_gradient`` the identity. So the mean of what is itself a
gradient, or of a bound with a derivative of its own making, is held against the derivative of that mean, and not
against the derivative that was put in its place.
"""

from dataclasses import replace

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, record, value_of
from scg.core.replay import rerun
from scg.distributions.base import Discrete, Distribution, FixedSupport, Reparameterizable
from scg.distributions.uniform import is_of_noise
from scg.errors import EstimatorError, ScgValueError
from scg.estimators import Reparameterized
from scg.primitives import layout
from scg.stochastic.analysis import draws
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.sites import is_draw, is_stochastic, place
from scg.stochastic.steps import refuse_steps

_LITTLE = 1e-12  # of the probability


class MovingSupport(ScgValueError):
    """A sample of which the support depends on what one differentiates by, without a path along which it moves."""


def as_values(roots: list[Node], derivatives: int = 0, images: bool = False) -> list[Node]:
    """Nodes of the same values of which the derivatives are those of the values, between samples.

    Where so many ``derivatives`` of a mean are to be found, samples become paths where the density has no such many
    under the integral: of a support that moves with its parameters the first would miss the ends, and of a density with
    a kink that does, as |z - loc|, the second would miss the jump of the slope there. With ``images`` those between two
    ends become paths, too, which know what they are the images of where they are rounded to an end.
    """
    order = ancestors(roots, guards=True)
    moving = {n.id: moves for n in order if (moves := _moves(n, derivatives, images))}
    if not moving and not any(n.primitive.constant or n.primitive.same for n in order):
        return roots
    table: dict[int, Node] = {}

    def visit(node: Node) -> Result:
        primitive = node.primitive
        if primitive.constant:
            table[node.id] = parameter(node.raw)
        elif primitive.same:
            x = (
                table.get(node.operands[0].id, node.operands[0])
                if type(node.operands[0]) is Node
                else parameter(node.operands[0])
            )
            table[node.id] = layout.alias(x if x.shape == node.shape else np.broadcast_to(x, node.shape))
        elif node.id in moving or is_stochastic(node) and any(type(o) is Node and o.id in table for o in node.operands):
            table[node.id] = redrawn(node, table, moving.get(node.id, ""))
        else:
            return NotImplemented
        return table[node.id]

    found: list[Node] = rerun(roots, order, table, set(), 0, True, visit)
    if moving and derivatives:
        for root in found:
            try:
                refuse_steps(root, draws([root]), ancestors([root], guards=True))
            except EstimatorError as error:
                what = " and ".join(sorted(set(moving.values())))
                raise MovingSupport(f"{what} moves with its parameters: {error}") from None
    return found


def _moves(node: Node, derivatives: int, images: bool) -> str:
    """What of a sample's density moves with its parameters, so that there are not so many ``derivatives`` under the
    integral; nothing where there are."""
    if not is_draw(node) or isinstance(distribution := node.statics["site"].distribution, Discrete):
        return ""
    if derivatives and not distribution.has(FixedSupport):
        return "the support"
    if images and is_of_noise(distribution) and _has_ends(distribution):
        return "what is rounded to an end of the range"
    return "a kink of the density" if derivatives > 1 and _bends(node, distribution) else ""


def rounded_share(node: Node) -> float:
    """Which part of a sample's probability lies where its values are rounded to an end of the support: 2e-6 of
    Beta(1/2, 0.35), whose density (1 - z)^(b - 1) has so much within one rounding of 1. 0 where it is little."""
    distribution = node.statics["site"].distribution
    if not _has_ends(distribution) or isinstance(distribution, Discrete) or not distribution.inverts_cdf():
        return 0.0
    plain = distribution.detached()
    low, high = (np.asarray(end, node.dtype) for end in (plain.support.low, plain.support.high))
    beyond = plain.cdf(np.nextafter(low, high)) + 1 - plain.cdf(np.nextafter(high, low))
    share = float(np.max(value_of(beyond), initial=0.0))
    return share if share > (_LITTLE if node.dtype.itemsize > 4 else 1e-6) else 0.0


def _has_ends(distribution: Distribution) -> bool:
    """Whether samples are numbers, or vectors of them, between two ends."""
    low, high = getattr(distribution.support, "low", -np.inf), getattr(distribution.support, "high", np.inf)
    return bool(np.all(np.isfinite(low)) and np.all(np.isfinite(high)))


def _bends(node: Node, distribution: Distribution) -> bool:
    """Whether the slope of log p by a parameter jumps where what one differentiates by moves the place."""
    parameters = [p for p in distribution.parameters.values() if type(p) is Node]
    score: Result = distribution.log_prob(node) if parameters else None
    if type(score) is not Node:
        return False
    slopes = pull([score], [np.ones(score.shape, score.dtype)], parameters, True)
    try:
        for slope in slopes:
            if type(slope) is Node:
                refuse_moving_jumps(total := np.sum(slope), ancestors([total], guards=True))
    except EstimatorError:
        return True
    return False


def redrawn(node: Node, table: dict[int, Node], moves: str) -> Node:
    """The sample with the parameters that ``table`` has, at the value that it had; as a path where something of its
    density ``moves`` with them."""
    site = node.statics["site"]
    new = {name: table[p.id] for name, p in site.distribution.parameters.items() if type(p) is Node and p.id in table}
    site = replace(site, distribution=site.distribution.replaced(**new)) if new else site
    if moves:
        if not site.distribution.has(Reparameterizable):
            raise MovingSupport(
                f"{moves} of {site!r} moves with its parameters, and no path is known along which its samples move"
            )
        return place(replace(site, estimator=Reparameterized(), rng=np.random.default_rng(0)))
    operands = tuple(site.distribution.parameters.values())
    if not is_draw(node):
        operands = (table.get(node.operands[0].id, node.operands[0]), *operands)
    return record(node.primitive, operands, {**node.statics, "site": site}, node.raw)
