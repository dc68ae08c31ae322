"""Whether a cost depends on samples, whose estimators differentiate it, through steps alone: of these the derivative is
zero, that of their mean is not."""

from collections.abc import Container, Sequence

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node, Value, value_of
from scg.errors import EstimatorError, NotDifferentiable, here
from scg.stochastic.estimator import Estimator, by_values
from scg.stochastic.sites import is_coupled, is_draw, is_stochastic
from scg.stochastic.terms import summands


def refuse_steps(cost: Node, found: list[Node], order: list[Node]) -> None:
    """Raise EstimatorError where a term of the cost depends on samples ``found`` whose estimator differentiates it
    (pathwise, REBAR) through steps alone. ``order`` are the nodes that lead to the cost, by growing id."""
    paths = [node for node in found if _is_differentiated(node.statics["site"].estimator)]
    if not paths:
        return
    _refuse_held([node for node in paths if node.statics["site"].estimator.continuous], order)
    moves = _moving(paths, order)
    region = {cost.id}
    for node in reversed(order):
        if node.id not in region or node.id not in moves:
            continue
        inner = summands(node, moves.keys())
        region.update(node.operands[k].id for k in inner)
        if not moves[node.id] and not inner:
            labels = ", ".join(repr(p.statics["site"]) for p in paths if p.id < node.id)
            raise EstimatorError(
                f"{labels}: an estimator that differentiates the cost needs one that is continuous in the sample, and"
                f" {node!r}, made at {node.line}, depends on it only through steps, of which the derivative is"
                f" zero: {by_values(paths[0].statics['site'].distribution, 'this node')} ({here()})"
            )


def refuse_own_steps(cost: Node, inputs: Sequence[Node], gradients: Sequence[Value]) -> None:
    """Raise NotDifferentiable where a cost that took numbers from a generator itself depends on a parameter through
    steps alone, and one of these is a comparison with numbers, as on p in ``rng.random() < p``: the derivative of a
    step is zero, that of its mean is not.

    Integers are none of these numbers: a step at 0 is one of data that were chosen at random. That numbers were taken
    is known to the caller. Of a cost with samples that are nodes their estimators know it all.
    """
    still = [x for x, g in zip(inputs, gradients, strict=True) if not np.any(value_of(g))]
    order = ancestors([cost], guards=True) if still else []
    if any([is_stochastic(node) for node in order]):
        return
    seen: set[int] = set()
    looked = {guard.node.id for node in order if node.guard is not None for guard in node.guard.unseen(seen)}
    for x in still:
        moves = _moving([x], order)
        steps = [node for node in order if not moves.get(node.id, True) and _is_at_numbers(node, moves)]
        if steps and not moves.get(cost.id, False) and (cost.id in moves or looked & moves.keys()):
            raise NotDifferentiable(
                f"the cost takes numbers from a generator itself, and depends on {x!r} through steps alone, such as"
                f" {steps[0]!r}, made at {steps[0].line}: their derivative is zero, that of the mean cost is not. Draw"
                " by scg.sample: for rng.random() < p write scg.sample(dist.Bernoulli(p), scg.ScoreFunction(), rng=rng)"
                f" ({here()})"
            )


def _is_at_numbers(step: Node, moves: Container[int]) -> bool:
    """Whether an operand of a step, which none of the nodes ``moves`` moves, is of numbers with a fraction."""
    still = [np.asarray(value_of(o)) for o in step.operands if type(o) is not Node or o.id not in moves]
    return any([x.dtype.kind == "f" and bool(np.any(x != np.rint(x))) for x in still])


def _is_differentiated(estimator: Estimator) -> bool:
    """Whether an estimator takes the derivative of the cost by its sample."""
    return type(estimator).draw is not Estimator.draw and estimator.unbiased or estimator.continuous


def _refuse_held(relaxed: list[Node], order: list[Node]) -> None:
    """Raise EstimatorError where ``stop_gradient`` holds a part of a cost that is made of relaxed samples."""
    # by id, of what depends on them: one of them
    made = {node.id: node for node in relaxed}
    for node in order if relaxed else ():
        source = next((made[o.id] for o in node.operands if type(o) is Node and o.id in made), None)
        if source is not None and node.primitive.holds and not node.statics.get("own"):
            raise EstimatorError(
                f"{source.statics['site']}: an estimator that differentiates a relaxed cost needs all of its slope, and"
                f" stop_gradient, at {node.line}, holds a part of it back, so that its control variate would not vanish"
                f" in the mean: use ScoreFunction(), ARM() or DisARM() ({here()})"
            )
        if source is not None:
            made[node.id] = source


def _moving(paths: list[Node], order: list[Node]) -> dict[int, bool]:
    """By id, of what depends on some samples: whether it moves with them, or only jumps.

    The value of a further sample does not move with its parameters: its estimator has what they contribute, and it is
    here only where one of them jumps.
    """
    moves = {node.id: True for node in paths}
    for node in order:
        if node.id in moves or node.primitive.holds:
            continue
        known = [moves[o.id] for o in node.operands if type(o) is Node and o.id in moves]
        sampled = is_draw(node) or is_coupled(node)
        if sampled and not all(known):
            moves[node.id] = False
        elif known and not sampled:
            numbers = node.primitive.differentiable and (type(node.raw) is tuple or node.dtype.kind in "fc")
            moves[node.id] = numbers and any(known)
    return moves
