"""Whether a cost depends on samples, whose estimators differentiate it, through steps alone: of these the derivative is
zero, that of their mean is not."""

from scg.core.node import Node
from scg.errors import EstimatorError, here
from scg.stochastic.estimator import Estimator, by_values
from scg.stochastic.sites import is_coupled, is_draw
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
