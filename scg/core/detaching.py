"""What a node does not do, because the result would leave its graph: each refusal says what to write instead."""

from typing import TYPE_CHECKING, NoReturn, cast

from scg.core.advice import of_caller
from scg.core.aliases import Function, Operand
from scg.core.ancestry import ancestors
from scg.core.operands import name_of
from scg.core.primitive import IMPLEMENTATIONS, Recorded, implements
from scg.errors import NotDifferentiable, ScgValueError, here, user_frame

if TYPE_CHECKING:
    from scg.core.node import Node


def refuse(advice: str, *callables: object, detached: bool = False) -> None:
    """Declare callables that a Node does not enter, and what to use instead; with ``detached`` also node.value, where
    no sample decides it."""
    for fn in callables:

        def implementation(*args: object, _fn: object = fn, **kwargs: object) -> NoReturn:
            also = or_value(*args, *kwargs.values()) if detached else ""
            raise NotDifferentiable(f"{name_of(_fn)} does not take a Node: {advice}{also} ({here()})")

        implements(fn)(implementation)
        implementation.advice = advice  # type: ignore[attr-defined]


def is_drawn(*values: Operand) -> bool:
    """Whether a sample decides some of these, which may be nodes: its number alone would lose the sample's gradient."""
    each = [x for value in values for x in (value if type(value) in (list, tuple) else (value,))]
    nodes = cast("list[Node]", [x for x in each if isinstance(x, Recorded)])
    return any([node.primitive.random for node in ancestors(nodes, guards=True)])


def or_value(*values: Operand) -> str:
    """That ``node.value`` will do as well, which is so of nodes that no sample decides."""
    return "" if is_drawn(*values) else ", or node.value to detach on purpose"


def refusal(
    what: str, instead: str, constant: str = "", drawn: str = "", kind: type[Exception] = NotDifferentiable
) -> Function:
    """A method that refuses: ``instead`` is what to write, or else ``constant`` for a node that no sample decides,
    ``drawn`` for one of a sample, of which the number alone has no gradient; ``kind`` is the error where there is
    ``drawn`` advice."""

    def refused(self: "Node", *args: object, **kwargs: object) -> NoReturn:
        random = is_drawn(self)
        ways = [way for way in (instead, drawn if random else constant) if way]
        error = kind if random else NotDifferentiable
        raise error(f"{what} would detach {self!r} from its graph: {', or '.join(ways)} ({here()})")

    return refused


_OF_A_CONSTANT = "scg.parameter(array)[node] to index an array by a node, or node.value to detach on purpose"


_OF_A_NUMBER = (
    "scg.parameter(array)[n.astype(int)] to index an array by a sample n, or, where n is a size, a comparison, as in"
    " `while n > i:`, or a mask, as in np.where(np.arange(most) < n, terms, 0.0)"
)


BY_A_SAMPLE = (
    "compare with it, as in `while n > i:`, or mask by it, as in np.where(np.arange(most) < n, terms, 0.0); as an index"
    " write scg.parameter(array)[n.astype(int)], and for a simulator scg.primitive(simulator)(n)"
)


def asked_for_an_array(self: "Node", dtype: object = None, copy: object = None) -> NoReturn:
    """``__array__`` of a node: whoever calls it, perhaps far from the user's line, is named."""
    frame = user_frame()
    if frame is not None and "nditer" in frame.f_code.co_names:  # it replaces a TypeError by one of its own
        raise ScgValueError(
            f"np.nditer would detach {self!r} from its graph: write `for x in np.ravel(node):`, or compute with the"
            f" whole node, as np.sum does ({here()})"
        )
    called = of_caller(IMPLEMENTATIONS.__contains__)
    if called:
        raise NotDifferentiable(f"{called}, as its result would be detached from {self!r} ({here()})")
    raise NotDifferentiable(
        f"np.asarray, np.array or a function that NumPy does not dispatch would detach {self!r} from its graph: use"
        " np.stack for a list of nodes, np.dot(array, node) for array.dot(node), a function of NumPy or scg.special"
        " for a value, scg.sample(distribution, estimator, rng=rng) for a sample,"
        f" {_OF_A_NUMBER if is_drawn(self) else _OF_A_CONSTANT} ({here()})"
    )


class Refusals:
    """What Python and NumPy take of an array, and a node refuses: numbers of this run, and changes in place."""

    __slots__ = ()

    __array__: Function = asked_for_an_array
    __float__ = refusal(
        "float()",
        "use np.stack to fill an array, a function of NumPy for one of math",
        "node.value to detach on purpose",
    )
    __int__ = refusal("int()", "", "use node.value", BY_A_SAMPLE)
    __complex__ = refusal("complex()", "use node + 0j", "node.value to detach on purpose")
    __index__ = refusal(
        "An index or a size",
        "",
        "use int(node.value) for a fixed one; to index an array by a node, make it one: scg.parameter(array)[node]",
        BY_A_SAMPLE,
        ScgValueError,  # NumPy replaces a TypeError by one of its own where it looks for a size
    )
    __round__ = refusal("round()", "use np.round or node.round()")
    __setitem__ = __delitem__ = refusal(
        "Assignment into a node", "nodes are immutable; use np.where, np.concatenate or np.stack"
    )
    item = refusal(".item()", "use node.reshape(()) to stay in the graph", "node.value.item()")
    tolist = refusal(".tolist()", "use list(node), of nodes", "node.value.tolist()")
    sort, partition, fill, put, resize = [
        refusal(f".{name}() in place", f"nodes are immutable; use {instead}")
        for name, instead in (
            ("sort", "np.sort"),
            ("partition", "np.partition"),
            ("fill", "np.full"),
            ("put", "np.where"),
            ("resize", "np.resize"),
        )
    ]
