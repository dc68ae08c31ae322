"""Steps that no sample comes to, in a run that is recorded for a plan: the plan looks at each call whether samples do.

Whether samples come to a step depends on the numbers of a run: none of Uniform(t, t + 2) is below zero for t = 0.5,
and a fourth of them for t = -0.5. So the samples and the noise before the step get other values along an axis of rows,
as in ``scg.stochastic.ways``, with all elements at the ends of their supports among them, and the nodes that this makes
are part of the plan. Where they are not all on the side that the samples of the call are on, the function is recorded
again, and the step is refused or not as in a plain run. Ends that are further out than a plain run looks are left out
where samples come to the step there already, as where a number underflows.
"""

import functools
from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Function, Operand, Result, Statics
from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.node import Node
from scg.core.primitive import primitive
from scg.core.replay import replay
from scg.distributions.base import Discrete, Distribution
from scg.distributions.parameterized import Shape
from scg.errors import ScgError
from scg.stochastic.sides import telling
from scg.stochastic.sites import is_draw, is_noise
from scg.stochastic.ways import ends, farther, fresh, sampled

_SURE = 8  # standard deviations: no sample is further out
_INSIDE = 1e-9  # of a support that is open
_FEW, _MANY = 8, 256  # rows
_NUMBERS = 2**14  # that are computed in all rows, at each call


def watch_unmet(node: Node, order: list[Node], touching: bool) -> None:
    """Let the plan that is recorded look whether all samples are on one side of a step; where they are not in this run
    either, or where that cannot be computed, the function has no plan. ``touching``: the step is at a zero of a
    denominator that never changes its sign, and has no sides."""
    recorder = RECORDER.get()
    before = [n for n in ancestors([node], order[0].id) if n.id <= node.id]
    leaves = [n for n in before if _is_leaf(n)]
    numbers = sum([n.size for n in before if type(n.raw) is not tuple])
    together = all([n.primitive.axes is not None or not n.operands for n in before])
    runs = int(np.clip(_NUMBERS // numbers, _FEW, _MANY)) if together else _FEW  # else each is an operation of its own
    looked, tell = telling(node)
    test = functools.partial(_is_one_side, tell=tell, statics=node.statics, nodes=[type(o) is Node for o in looked])
    for sure in (True, False) if leaves and not touching else ():
        if _holds(test, looked, leaves, runs, sure):
            with np.errstate(all="ignore"):
                recorder.settle(test, (*_moved(looked, leaves, runs, sure), *looked), True)
            return
    recorder.plainly(
        f"whether the cost jumps at {node!r}, a step that moves with the parameters and with a sample, depends on their"
        " numbers, and is found out in each run",
        node.line,
    )


def _holds(test: Function, looked: list[Operand], leaves: list[Node], runs: int, sure: bool) -> bool:
    """Whether all samples are on one side in the run that is recorded."""
    token = RECORDER.set(None)
    try:
        with np.errstate(all="ignore"):
            now = [o.raw if type(o) is Node else o for o in looked]
            return bool(test(*_moved(looked, leaves, runs, sure), *now))
    except (ScgError, np.linalg.LinAlgError, ArithmeticError, ValueError):
        return False
    finally:
        RECORDER.reset(token)


def _moved(looked: list[Operand], leaves: list[Node], runs: int, sure: bool) -> list[Operand]:
    """What a step looks at, with an axis of rows where it is a node: nodes while a plan is recorded, else arrays."""
    rng = np.random.default_rng(0)
    held = {n: _rows(n, rng, runs, sure) for n in leaves}
    found = iter(replay([o for o in looked if type(o) is Node], held, list(held)))
    return [next(found) if type(o) is Node else o for o in looked]


def _is_one_side(*values: Operand, tell: Function | None, statics: Statics, nodes: list[bool]) -> bool:
    """Whether rows of values of what a step looks at are all on the side of the values of now, which come after
    them; ``nodes``: which of them have rows."""
    count = len(nodes)
    rows, now = _side(tell, values[:count], nodes, statics), _side(tell, values[count:], [False] * count, statics)
    return bool(np.all(rows == now))


def _side(tell: Function | None, values: Sequence[Operand], led: list[bool], statics: Statics) -> Result:
    """On which side, (rows, elements), of values of which some have an axis of rows."""
    wide = [_led(v) if not has else v for v, has in zip(values, led, strict=True)]
    if tell is None:
        (side,) = wide
    else:
        side = tell(*[padded(w, max(x.ndim for x in wide) - 1) for w in wide], **statics)
    side = np.stack(side, axis=-1) if type(side) is tuple else side
    return np.reshape(side, (len(side), -1))


def _led(value: Operand) -> Operand:
    return tuple([v[None] for v in value]) if type(value) is tuple else np.asarray(value)[None]


def _is_leaf(n: Node) -> bool:
    taken = is_noise(n) or is_draw(n) and not n.statics["site"].distribution.has(Discrete)
    return taken and n.dtype.kind == "f"


def _rows(n: Node, rng: np.random.Generator, runs: int, sure: bool) -> Result:
    """Other values of a leaf; of a sample, those that its parameters give."""
    if is_noise(n):
        rows = fresh(n, rng, runs)
        return _with_ends(n.statics["distribution"], rows) if sure else rows
    given = n.operands if RECORDER.get() is not None else [o.raw if type(o) is Node else o for o in n.operands]
    distribution = n.statics["site"].distribution.detached()
    return samples(*given, distribution=distribution, shape=n.shape, dtype=n.dtype, runs=runs, sure=sure)


def _samples(
    *parameters: Result, distribution: Distribution, shape: Shape, dtype: np.dtype, runs: int, sure: bool
) -> Result:
    rng = np.random.default_rng(0)
    distribution = distribution.replaced(**dict(zip(distribution.parameters, parameters, strict=True)))
    drawn = np.reshape(sampled(distribution, rng, runs, shape), (runs, *shape))
    rows = np.asarray(farther(distribution, drawn, rng), dtype)
    return _with_ends(distribution, rows) if sure else rows


samples = primitive(_samples, name="samples")
"""Other samples of a distribution, always the same ones for the same parameters."""


def _with_ends(distribution: Distribution, rows: Result) -> Result:
    """The rows, of which some are all at one end, or each element at one of both."""
    found = ends(distribution, rows, _SURE, max(_INSIDE, float(np.finfo(rows.dtype).eps)))
    if found is not None:
        mixed = np.random.default_rng(1).random(rows.shape[1:]) < 0.5
        rows = np.array(rows)
        rows[0], rows[1] = found
        rows[2:4] = np.where([mixed, ~mixed], found[1], found[0])
    return rows
