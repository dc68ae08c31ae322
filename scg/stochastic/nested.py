"""Gradients inside a cost: an estimate as a value like any other, beside its derivative as an estimate of that of its
mean."""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.backward import estimate, is_estimate
from scg.core.leaves import parameter
from scg.core.node import Node, Value, record
from scg.core.primitive import smooth_primitive
from scg.core.replay import rerun
from scg.distributions.base import FixedSupport
from scg.errors import NotDifferentiable, here
from scg.primitives import layout
from scg.stochastic.dependence import accounted, is_accounted
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.formulas import first_order, is_only_once, score
from scg.stochastic.sites import is_path, is_stochastic, path
from scg.stochastic.surrogate import Downstream


def paired(gradients: Sequence[Result], drawn: list[Node], weights: Sequence[Result] = ()) -> list[Result]:
    """Gradients of what ``scg.surrogate.expanded`` returned, with its samples, as estimates: what nests may be any
    function of them.

    ``weights`` is what they were multiplied by; where these depend on the samples as well, and where an estimator's
    formula is right for a first derivative alone, an estimate is its value and no more: of that all derivatives are
    known.
    """
    nodes = [g for g in gradients if type(g) is Node]
    if not drawn or not nodes:
        return list(gradients)
    leading = {node.id for node in ancestors(nodes)}
    own = [node for node in drawn if node.id in leading]
    followed = values(nodes)
    plain = iter(followed)
    if not {node.id for node in ancestors([w for w in weights if type(w) is Node], guards=True)}.isdisjoint(
        [node.id for node in own]
    ):
        own = []
    pairs = [(g, next(plain) if type(g) is Node else g) for g in gradients]
    for looked, is_unknown, why in ((nodes, _is_at_a_partners, _PARTNERS), (followed, _is_at_an_end, AT_AN_END)):
        if any(map(is_unknown, _inside(looked))):
            return [only_value(v, why=why) if type(v) is Node else v for _, v in pairs]
    if not own or any([is_only_once(node) for node in _inside(nodes)]):
        return [v for _, v in pairs]
    return [g if v is g else estimate(v, g, *own) for g, v in pairs]


_PARTNERS = (
    "it is by ARM or DisARM on a sample that depends on another sample whose estimator draws alternatives itself; use"
    " ScoreFunction(), Enumerate() or MeasureValued() on one of the two stochastic nodes"
)
AT_AN_END = (
    "its estimator compares with a sample of its own that is certain there, as the partner of ARM and DisARM is at"
    " logits of exactly 0, and is not beside it; use ScoreFunction(), Enumerate() or MeasureValued() on the stochastic"
    " node"
)
"""Why the derivative of an estimate is not known where what it is compared with is certain."""


def _refuse(g: Value, out: Value, value: Value, why: str) -> Value:
    raise NotDifferentiable(f"the derivative of a gradient inside this cost is not known: {why} ({here()})")


only_value: Function = smooth_primitive(lambda value, why: value, elementwise, _refuse, name="only_value", same=True)
"""The value, with a derivative that is refused."""


def _is_at_a_partners(node: Node) -> bool:
    """Whether a sample, made again where an estimator looked elsewhere, would be compared with a partner of its own,
    and depends on a sample that an estimator made for itself."""
    if not is_stochastic(node):
        return False
    site = node.statics["site"]
    return site.replicate_axes > 0 and site.estimator.partner and any(map(_is_own, ancestors([node])))


def _is_at_an_end(node: Node) -> bool:
    """Whether an estimator made a sample for itself with a probability of exactly 0 or 1 that moves: its score knows
    nothing of what has no probability."""
    if not is_stochastic(node):
        return False
    site = node.statics["site"]
    return type(site.estimator) is Scored and not site.distribution.has(FixedSupport)


def values(roots: list[Node]) -> list[Node]:
    """Nodes of the same values that are differentiated as these values, at the samples as they are.

    What stands there for the sake of derivatives alone is taken out: a box is the number one, ``first_order`` zero,
    what an estimator holds constant is a function of the parameters, and a sample that it makes on its own account is
    one whose probability depends on them. What it is that an estimate inside stands for is known already.
    """
    order = _inside(roots)
    if not any([node.primitive.constant or _is_formula(node) or _is_own(node) for node in order]):
        return roots
    table: dict[int, Result] = {}

    def visit(node: Node) -> Result:
        if node.primitive.constant:
            table[node.id] = parameter(node.raw)
        elif _is_formula(node):
            x: Value = node.operands[0]
            x = table.get(x.id, x) if type(x) is Node else parameter(x)
            table[node.id] = layout.alias(x if x.shape == node.shape else np.broadcast_to(x, node.shape))
        elif is_stochastic(node) and (_is_own(node) or any([type(o) is Node and o.id in table for o in node.operands])):
            table[node.id] = _followed(node, table)
        else:
            return NotImplemented
        return table[node.id]

    return rerun(roots, order, table, set(), 0, True, visit)  # type: ignore[no-any-return]


def _inside(roots: list[Node]) -> list[Node]:
    """All that leads to some nodes, but for what leads to estimates inside, and to a sample that another one
    follows."""
    seen = {root.id: root for root in roots}
    stack = list(roots)
    while stack:
        node = stack.pop()
        for operand in node.operands[len(node.operands) if is_estimate(node) else _is_followed(node) :]:
            if type(operand) is Node and operand.id not in seen:
                seen[operand.id] = operand
                stack.append(operand)
    return [seen[i] for i in sorted(seen)]


def _is_formula(node: Node) -> bool:
    """Whether a node has another derivative than its value for the sake of an estimator's formula."""
    return is_only_once(node) or is_accounted(node) or node.primitive.holds and "own" in node.statics


def _is_own(node: Node) -> bool:
    """Whether a node is a sample that an estimator made for itself, from a distribution with parameters."""
    return (
        is_stochastic(node)
        and type(node.statics["site"].estimator) is Accounted
        and any([type(o) is Node for o in node.operands])
    )


def is_of_an_estimator(node: Node) -> bool:
    """Whether a sample is none of the user's: an estimator made it for itself."""
    return type(node.statics["site"].estimator) in (Accounted, Scored)


def _is_followed(node: Node) -> bool:
    return is_path(node) and type(node.operands[0]) is Node and is_accounted(node.operands[0])


def _followed(node: Node, table: dict[int, Result]) -> Node:
    """The sample itself, the same random variable, under the parameters that ``table`` has."""
    site, own = node.statics["site"], _is_own(node)
    new = {name: table[p.id] for name, p in site.distribution.parameters.items() if type(p) is Node and p.id in table}
    site = replace(
        site,
        distribution=site.distribution.replaced(**new),
        estimator=Scored() if own else site.estimator,
        name=None if own else site.name,
    )
    z = (
        table.get(node.operands[0].id, node.operands[0])
        if is_path(node)
        else accounted(layout.stop_gradient(node), node)
    )
    statics = {key: value for key, value in node.statics.items() if key == "name" and not own}
    return record(path, (z, *site.distribution.parameters.values()), {**statics, "site": site}, node.raw)


@final
class Scored(Estimator):
    """Score function, for samples that an estimator makes on its own account, where the estimate is a value in a
    cost."""

    scores = True
    second_derivatives = True
    baseline = None

    def expand(self, down: Downstream) -> Result:
        return None if down.higher or not down.influences else np.sum(first_order(score(down.node), down.now()))
