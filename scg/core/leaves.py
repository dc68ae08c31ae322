"""The leaves of a graph: parameters, which are what one differentiates with respect to."""

from typing import NoReturn

from numpy.typing import ArrayLike

from scg.core.node import Node, record
from scg.core.operands import described, frozen, plain
from scg.core.primitive import primitive
from scg.errors import ScgTypeError, here


def _leaf() -> NoReturn:
    raise ScgTypeError("a leaf is not computed")


PARAMETER = primitive(_leaf, name="parameter")


FINISHED = primitive(_leaf, name="parameter")
"""A leaf: a parameter of a run that is over and gave its derivatives away as arrays. What was made of it belongs to no
other run."""


def parameter(value: ArrayLike, name: str | None = None) -> Node:
    """A leaf to differentiate with respect to: a copy of ``value``.

    Raises ScgTypeError unless it is real floating-point: a derivative in an integer does not exist.
    """
    if type(value) is Node:
        raise ScgTypeError(f"a parameter is a leaf; {value!r} is already a node ({here()})")
    if name is not None and not isinstance(name, str):
        raise ScgTypeError(f"a name must be a string, got {described((name,))} ({here()})")
    array = plain(value, name or "a parameter")
    if array.dtype.kind != "f":
        kinds = {
            "c": "differentiate its real and imaginary parts",
            "O": "pass an array of floats",
            "U": "pass an array of floats",
        }
        advice = kinds.get(
            array.dtype.kind,
            "use x.astype(float)" if hasattr(value, "astype") else "write 1.0 for 1, or np.asarray(x, float)",
        )
        raise ScgTypeError(
            f"{name or 'a parameter'} must be real floating-point, got {described((value,))} of dtype {array.dtype}:"
            f" {advice} ({here()})"
        )
    return record(PARAMETER, (), {"name": name} if name else {}, frozen(array))


def is_parameter(node: Node) -> bool:
    """Whether a node is a leaf to differentiate by."""
    return node.primitive is PARAMETER or node.primitive is FINISHED


def is_finished(node: Node) -> bool:
    """Whether a node is a parameter of a run that is over and gave its derivatives away as arrays."""
    return node.primitive is FINISHED
