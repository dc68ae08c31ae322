"""Every refusal of scg: a ``ScgError`` and the builtin exception that a Python user expects.

Every refusal is an `scg.ScgError`, and also the builtin error that one would expect (`TypeError`, `ValueError`,
`IndexError`, ...). The message names the operation or the node, says what was needed, what came and what to write,
and ends with the line of your own code.

```python
import textwrap
import numpy as np
import scg

try:
    scg.grad(lambda x: 2 * x)(np.ones(3))
except ValueError as error:
    print(textwrap.fill(str(error), 100))
```

```text
a cost must be a scalar, got shape (3,) from <multiply: [2., 2., 2.], shape (3,), float64>, made at
model.py:6, in <lambda>: take np.sum or np.mean of it, or use scg.jacobian (model.py:6, in <module>)
```

Inside `with scg.detect_nan():` the first operation that makes a NaN, forward or backward, raises with its name.
Parameters and arrays that enter a graph are copied or frozen, so that a gradient never uses values that were changed
behind its back.

# What a node refuses

Nothing leaves a graph silently. What NumPy cannot hand on to scg would turn a node into a constant, and give a
gradient that is wrong and looks right; it raises instead.

| refused | because | write |
| --- | --- | --- |
| `np.asarray(node)`, `float(node)`, `math.exp(node)` | it would leave the graph | NumPy's function; `node.value` |
| `buffer[0] = node`, `buffer += node`, `out=buffer` | a buffer forgets its sources | `np.stack`, `np.concatenate` |
| `node[0] = 1` | nodes do not change | `np.where` |
| `v -= 1` on an array that others hold too | they would see the change | `v = v - 1` |
| `np.ma` arrays and `np.matrix` beside a node | a mask would be lost | `np.where(mask, ..., ...)` |
| `array[node]`, `np.take(array, node)` | an array does not ask its index | `scg.parameter(array)[node]` |
| `table[node]`, `node in {0, 1}`, a cache | it would look for the node itself | `scg.parameter(array)[node]` |
| `np.histogram(node)`, and whatever has no derivative | zero would be wrong | what the message says |
| integers as parameters | no derivative in an integer | `x.astype(float)` |

`node.value` and `distribution.sample(rng)` are numbers that no gradient passes: good to look at, to print and to hold
constant. A function that takes them of its samples and returns a number, and no node, is refused.

`np.take_along_axis` takes a node as its index, too. Sets and dicts refuse a number that is a node in the run of a
function alone: those of `graph.nodes` find the nodes themselves.

Where NumPy catches what a node raises, as in `buffer[0] = node`, its own `ValueError` comes instead, with ours as its
cause.

`if node > 0:` is allowed. The graph remembers how it came out, and a replay in which it comes out otherwise raises
`GuardError`. `graph.gradients` runs the function again from there, with the samples that were drawn before; so does an
estimator that looks at the cost at other values of a sample, for first derivatives outside of a plan.
"""

import os
import sys
import sysconfig
from types import CodeType, FrameType

import numpy as np
import scipy

__all__ = [
    "EstimatorError",
    "GuardError",
    "NonFiniteError",
    "NotDifferentiable",
    "PlanError",
    "ScgAttributeError",
    "ScgAxisError",
    "ScgError",
    "ScgIndexError",
    "ScgLinAlgError",
    "ScgTypeError",
    "ScgValueError",
]

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = tuple({os.path.join(_STANDARD, name) + os.sep for name in ("site-packages", "dist-packages")})
_NOT_THE_USERS = (PACKAGE, os.path.dirname(np.__file__) + os.sep, os.path.dirname(scipy.__file__) + os.sep)


class _Theirs(dict[str, bool]):
    def __missing__(self, file: str) -> bool:
        standard = file.startswith(_STANDARD) and not file.startswith(_INSTALLED) or file.startswith("<frozen ")
        self[file] = theirs = standard or file.startswith(_NOT_THE_USERS)
        return theirs


NOT_THE_USERS = _Theirs()
"""By the name of a file: whether it is one of the package, of NumPy, of SciPy or of Python itself."""


class ScgError(Exception):
    """Base of all errors that scg raises on purpose."""


class ScgTypeError(ScgError, TypeError):
    """An argument of the wrong kind: integers where a gradient needs floats, an object array, a string."""


class ScgValueError(ScgError, ValueError):
    """An argument of the right kind whose value or shape does not fit."""


class ScgIndexError(ScgError, IndexError):
    """An index outside the axis that it indexes."""


class ScgAttributeError(ScgError, AttributeError):
    """An attribute that nodes or distributions do not have, and what to write in its place."""


class ScgAxisError(ScgIndexError, ScgValueError, np.exceptions.AxisError):
    """An axis that the array does not have."""


class ScgLinAlgError(ScgError, np.linalg.LinAlgError):
    """A matrix for which the decomposition or the solution does not exist."""


class NotDifferentiable(ScgTypeError):
    """The value exists, but no derivative is declared for it; the message says what to use."""


class NonFiniteError(ScgError, FloatingPointError):
    """Inside ``detect_nan()``: the operation that made the first NaN."""


class GuardError(ScgError, RuntimeError):
    """A replay would have taken another branch of an ``if`` than the recorded run took.

    ``agrees`` tells which replicates would have taken the recorded one, (R,); None where there are no replicates.
    """

    agrees: np.ndarray | None = None


class PlanError(ScgTypeError):
    """A function that cannot be compiled into a plan; the message names the line, and ``fallback=True`` runs it
    plainly."""


class EstimatorError(ScgTypeError):
    """An estimator on a node that it is not valid for, refused where it is declared."""


_KINDS: dict[type[BaseException], type[ScgError]] = {
    TypeError: ScgTypeError,
    ValueError: ScgValueError,
    IndexError: ScgIndexError,
    np.exceptions.AxisError: ScgAxisError,
    np.linalg.LinAlgError: ScgLinAlgError,
}


def kin(error: Exception) -> type[ScgError] | None:
    """The ``ScgError`` that is also an ``error`` of its builtin kind; None where there is none."""
    return next((_KINDS[kind] for kind in type(error).__mro__ if kind in _KINDS), None)


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame outside the package, NumPy, SciPy and Python's own library: the user's own line."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and (NOT_THE_USERS[frame.f_code.co_filename] or _is_generated(frame.f_code)):
        frame = frame.f_back
    return frame


def _is_generated(code: CodeType) -> bool:
    """Whether it is the ``__init__`` of a dataclass, which has no line of its own."""
    return code.co_name == "__init__" and code.co_filename == "<string>"


def here() -> str:
    """``file.py:12, in f``: the user's own line, for a message raised now."""
    frame = user_frame(2)
    return "" if frame is None else location(frame.f_code, frame.f_lasti)


def location(code: CodeType | str | None, instruction: int) -> str:
    """``file.py:12, in f`` for a recorded code object and instruction offset; ``Cell In[6], line 12, in f`` in a
    notebook."""
    if code is None or isinstance(code, str):
        return code or "unknown line"
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end), code.co_firstlineno)
    return f"{_cell(code.co_filename) or f'{code.co_filename}:'}{line}, in {code.co_name}"


def _cell(file: str) -> str:
    """``Cell In[6], line `` where IPython, if it runs, compiled the code of a cell under this name."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    named = getattr(getattr(shell, "compile", None), "format_code_name", None)
    kind, cell = named and named(file) or ("", "")
    return f"{kind} {cell}, line " if kind == "Cell" else ""
