"""``programs()``: deterministic NumPy programs, drawn from the operations that ``operations.py`` writes down."""

import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.special
from hypothesis import strategies as st
from numpy.typing import DTypeLike

import scg.special
from scg.core.aliases import Tree
from scg.errors import ScgTypeError, ScgValueError, here
from scg.testing.program import Program
from scg.testing.strategies.choices import BOUND, NoFit, Pick, Value
from scg.testing.strategies.operations import OPERATIONS, Operation

# what one statement's choices are read off: as many bits as Hypothesis draws uniformly
ENTROPY = st.integers(0, 2**24 - 1)
NAMES = "xyzwut"
# of a scalar, of an array
ENDINGS = (("{}", "{}**2", "np.sin({})"), ("np.sum({})", "np.mean({}**2)", "np.sum(np.sin({}))"))


def programs(
    *,
    operations: Iterable[str] | None = None,
    dtypes: Sequence[DTypeLike] = (np.float64,),
    order: int = 2,
    max_statements: int = 10,
    max_elements: int = 16,
    max_arguments: int = 3,
) -> st.SearchStrategy[Program]:
    """Draws deterministic programs: a ``Program`` whose function takes floating-point arrays or a structure of them,
    and returns a scalar.

        @given(scg.testing.programs())
        def test_gradients(program):
            scg.testing.check_gradient(program, *program.args)

    ``operations``     names, or families of them (``scg.testing.strategies.operations.OPERATIONS``); all where not
                       given
    ``dtypes``         each argument has one of these
    ``order``          only operations that are differentiable so often
    ``max_statements``, ``max_elements``, ``max_arguments``  bounds of its length, of the size of every value, and of
                                                             the number of arrays

    A statement applies one operation to earlier values, which may be used again; those that nobody uses are summed into
    the result. The function is run while it is drawn, and every operation gets operands where it is smooth and
    well-conditioned: magnitudes stay below 4, poles and edges are kept away from by transformations that are written
    into the program, and kinks (ties) by choosing other operands. The elements of all arguments differ, and are short
    binary fractions, so that they are the same numbers in every dtype.

    Raises ScgValueError for an operation that does not exist, or where none is differentiable so often.
    """
    chosen = _chosen(operations, order)
    kinds = [np.dtype(kind) for kind in dtypes]
    if not kinds or any(kind.kind != "f" for kind in kinds):
        raise ScgTypeError(f"programs needs floating-point dtypes, got {list(dtypes)} ({here()})")
    if min(max_statements, max_elements) < 1:
        raise ScgValueError(
            f"max_statements and max_elements must be at least 1, got {max_statements} and {max_elements} ({here()})"
        )
    if not 1 <= max_arguments <= len(NAMES):
        raise ScgValueError(f"max_arguments must be between 1 and {len(NAMES)}, got {max_arguments} ({here()})")
    argument = st.tuples(st.integers(0, 8), st.sampled_from(kinds))
    statement = st.tuples(st.sampled_from([o.name for o in chosen]), ENTROPY)

    def build(
        sides: tuple[int, int], arguments: Tree, statements: Tree, seed: int, container: int, closing: int
    ) -> Program:
        shaped = [(_shape(kind, *sides, max_elements), dtype) for kind, dtype in arguments]
        return write(shaped, statements, seed, container, closing, max_elements)

    return st.builds(
        build,
        st.tuples(st.integers(1, 3), st.integers(2, 4)),
        st.lists(argument, min_size=1, max_size=max_arguments),
        st.lists(statement, min_size=1, max_size=max_statements),
        st.integers(0, 2**16 - 1),
        st.integers(0, 3),
        ENTROPY,
    )


def _chosen(operations: Iterable[str] | None, order: int) -> list[Operation]:
    if isinstance(operations, str):
        raise ScgTypeError(f"operations needs a list of names, got the text {operations!r} ({here()})")
    names = list(OPERATIONS if operations is None else operations)
    families = {o.family for o in OPERATIONS.values()}
    if unknown := [name for name in names if name not in OPERATIONS and name not in families]:
        raise ScgValueError(
            f"no operation or family is called {', '.join(unknown)}; families are {', '.join(sorted(families))}"
            f" ({here()})"
        )
    chosen = [o for o in OPERATIONS.values() if (o.name in names or o.family in names) and o.order >= order]
    if not chosen:
        raise ScgValueError(f"none of {', '.join(names) or 'no operations'} is differentiable {order} times ({here()})")
    return chosen


def _shape(kind: int, m: int, n: int, max_elements: int) -> tuple[int, ...]:
    """One of nine shapes of the two sides, which broadcast and multiply with each other; the largest that is not too
    large."""
    shapes = [(n,), (), (n, n), (m, n), (m, 1), (n, m), (1, n), (2, n, n), (2, m, n)]
    return next((s for s in shapes[kind::-1] if np.prod(s) <= max_elements), ())


def write(
    arguments: Sequence[tuple[tuple[int, ...], DTypeLike]],
    statements: Sequence[tuple[str, int]],
    seed: int = 0,
    container: int = 0,
    closing: int = 0,
    max_elements: int = 16,
) -> Program:
    """The program of these statements: each is the name of an operation and the number that its choices are read off.

    A statement whose operation suits no value that there is, or whose value is too large or not finite, is left out.
    """
    given, paths = _contained(_numbers(arguments, seed), container)
    space: dict[str, object] = {"np": np, "special": scipy.special, "scg": scg, **given}
    values = [Value(path, np.asarray(eval(path, space))) for path in paths]
    unused, lines = dict.fromkeys(paths), list[str]()
    for kind, entropy in statements:
        pick = Pick(values[::-1], entropy, max_elements)
        try:
            text, result = _bounded(OPERATIONS[kind].write(pick), space, max_elements)
        except (NoFit, ValueError):  # NumPy's own refusal of shapes, or of a matrix
            continue
        name = f"v{len(lines) + 1}"
        for value in values:
            if re.search(rf"(?<![\w.]){re.escape(value.text)}(?!\w)", text):
                unused.pop(value.text, None)
        lines.append(f"    {name} = {text}")
        unused[name] = None
        space[name] = result
        values.append(Value(name, np.asarray(result)))
    pick = Pick([], closing, max_elements)
    total = " + ".join(
        [pick.one(ENDINGS[value.array.ndim > 0]).format(value.text) for value in values if value.text in unused]
    )
    return Program("\n".join([f"def cost({', '.join(given)}):", *lines, f"    return {total}"]), given)


def _bounded(text: str, space: dict[str, object], max_elements: int) -> tuple[str, np.ndarray]:
    """The text and its value, divided by a power of two where the value is larger than BOUND."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        result = eval(text, space)
    size = np.max(np.abs(result), initial=0)
    if np.size(result) > max_elements or not np.size(result) or not np.isfinite(size):
        raise NoFit
    if size <= BOUND:
        return text, result
    factor = 2.0 ** np.ceil(np.log2(size / BOUND))
    return f"{text} / {factor}", result / factor


def _numbers(arguments: Sequence[tuple[tuple[int, ...], DTypeLike]], seed: int) -> list[np.ndarray]:
    """Arrays of these shapes and dtypes, of different multiples of a power of two in [-2, 2], none of them zero."""
    sizes = [int(np.prod(shape)) for shape, _ in arguments]
    half = int(2 ** np.ceil(np.log2(max(32, sum(sizes) / 2))))
    grid = np.arange(1, half + 1) * (2 / half)
    drawn = np.random.default_rng(seed).permutation(np.concatenate([grid, -grid]))[: sum(sizes)]
    parts = np.split(drawn, np.cumsum(sizes)[:-1])
    return [part.reshape(shape).astype(dtype) for part, (shape, dtype) in zip(parts, arguments, strict=True)]


def _contained(arrays: Sequence[np.ndarray], container: int) -> tuple[dict[str, Tree], list[str]]:
    """The arguments, one each or all in one structure; and how each array is written."""
    named = dict(zip(NAMES, arrays, strict=False))
    if container == 1:
        return {"p": named}, [f'p["{name}"]' for name in named]
    if container == 2:
        return {"p": list(arrays)}, [f"p[{i}]" for i in range(len(arrays))]
    if container == 3 and len(arrays) > 1:
        first, *rest = named
        structure = {"rest": tuple([named[name] for name in rest])}
        return {first: named[first], "p": structure}, [first, *[f'p["rest"][{i}]' for i in range(len(rest))]]
    return named, list(named)
