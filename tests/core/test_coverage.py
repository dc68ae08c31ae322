"""Every name that NumPy dispatches is differentiable, constant, static or refused; none detaches a Node, and none makes
an object array."""

import io
import math

import numpy as np
import numpy.char
import numpy.fft
import numpy.lib.recfunctions
import numpy.lib.scimath
import numpy.ma
import numpy.polynomial
import numpy.strings
import pytest
from numpy.testing.overrides import get_overridable_numpy_array_functions, get_overridable_numpy_ufuncs

import scg
from scg.core.node import Node
from scg.core.primitive import IMPLEMENTATIONS, Primitive
from tests.support.cases import all_cases

pytestmark = pytest.mark.fast

UFUNCS = sorted(get_overridable_numpy_ufuncs(), key=lambda fn: fn.__name__)
# np.eye(3, like=node) arrives under the name np.eye, and not under that of the dispatcher around it
FUNCTIONS = sorted(
    {
        getattr(fn, "_implementation", fn) if fn not in IMPLEMENTATIONS else fn
        for fn in get_overridable_numpy_array_functions()
    },
    key=lambda fn: (fn.__module__, fn.__name__),
)
CASES = all_cases()
METHODS = ("reduce", "accumulate", "outer", "reduceat", "at")


def name_of(fn):
    home = getattr(fn, "__module__", None) or (
        "np" if hasattr(np, fn.__name__) and fn is getattr(np, fn.__name__) else "np._core.umath"
    )
    for internal, public in (
        ("numpy.lib.scimath", "np.emath"),
        ("numpy.lib._scimath_impl", "np.emath"),
        ("numpy.lib._arraysetops_impl", "np"),
        ("numpy", "np"),
    ):
        home = home.replace(internal, public)
    return f"{home}.{fn.__name__}"


def kind_of(fn, cases=CASES):
    """What becomes of a Node in ``fn``: read off the declaration, and for compositions of primitives off the catalogue.
    None is left to chance."""
    implementation = IMPLEMENTATIONS.get(fn)
    name = name_of(fn)
    orders = {case.order > 0 for case in cases if case.name == name}
    if implementation is None:
        return None
    if hasattr(implementation, "advice"):
        return "refused"
    if hasattr(implementation, "static"):
        return "static"
    if isinstance(implementation, Primitive) and not implementation.differentiable:
        return "constant"
    if True in orders or isinstance(implementation, Primitive):
        return "differentiable"
    return "constant" if False in orders else None


def test_the_whole_list_is_walked():
    recent = np.lib.NumpyVersion(np.__version__) >= "2.4.0"  # the counts are those of 2.4 and of 2.0
    assert len(UFUNCS) >= (127 if recent else 116) and len(FUNCTIONS) >= 300
    assert {"add", *(("_center", "matvec") if recent else ())} <= {fn.__name__ for fn in UFUNCS}
    assert {"rfft", "join_by", "einsum", *(("zfill",) if recent else ()), "logn"} <= {fn.__name__ for fn in FUNCTIONS}


def test_every_name_is_classified():
    assert [name_of(fn) for fn in [*UFUNCS, *FUNCTIONS] if kind_of(fn) is None] == []


def test_a_name_without_rule_or_case_is_noticed():
    assert kind_of(len) is None
    assert kind_of(np.moveaxis) == "differentiable" and kind_of(np.moveaxis, cases=[]) is None


REFUSED = [fn for fn in [*UFUNCS, *FUNCTIONS] if kind_of(fn) == "refused"]


@pytest.mark.parametrize("fn", REFUSED, ids=name_of)
def test_a_refusal_names_the_function_and_the_way_out(fn):
    node = scg.parameter(np.ones(2), name="x")
    assert len(IMPLEMENTATIONS[fn].advice) > 20
    for arguments in (
        ([node] * fn.nin,) if isinstance(fn, np.ufunc) else (*([node] * n for n in range(1, 5)), [io.BytesIO(), node])
    ):
        try:
            result = fn(*arguments)
        except scg.ScgError as error:
            assert (
                fn.__name__ in str(error)
                and IMPLEMENTATIONS[fn].advice in str(error)
                and "test_coverage.py" in str(error)
            )
            return
        except TypeError:
            continue  # too few arguments, or too many
        raise AssertionError(f"{name_of(fn)} of a Node returned {result!r}")
    raise AssertionError(f"no call reached {name_of(fn)}")


@pytest.mark.parametrize(
    "ufunc", [fn for fn in UFUNCS if fn.nin == 2 and fn.nout == 1 and fn.signature is None], ids=name_of
)
def test_a_ufunc_method_stays_in_the_graph_or_refuses(ufunc):
    node = scg.parameter(np.array([1.5, 0.5]))
    calls = {"outer": (node, node), "reduceat": (node, [0]), "at": (node, [0], 1.0)}
    for method in METHODS:
        try:
            result = getattr(ufunc, method)(*calls.get(method, (node,)))
        except scg.ScgError as error:
            assert ufunc.__name__ in str(error) or (ufunc, method) in IMPLEMENTATIONS
        else:
            assert type(result) is Node, f"{ufunc.__name__}.{method} returned {type(result).__name__}"


def draw(domain, rng):
    x = rng.uniform(domain.low, domain.high, (2, 3) if domain.shape is None else domain.shape)
    return x


def leaves(result):
    return [leaf for item in result for leaf in leaves(item)] if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parametrize("module", sorted({case.name.rpartition(".")[0] for case in CASES}))
def test_a_result_is_a_node(module):
    rng = np.random.default_rng(0)
    for case in CASES:
        if case.name.rpartition(".")[0] == module:
            inputs = [scg.parameter(draw(domain, rng)) for domain in case.domains]
            made = [domain.make(x) if domain.make else x for domain, x in zip(case.domains, inputs, strict=True)]
            for result in leaves(case.fn(*made)):
                assert type(result) is Node, f"{case.name} returned {type(result).__name__}"
                assert result.dtype.kind in "fiucb"


def _assign(node):
    buffer = np.zeros(2)
    buffer[...] = node


def _assign_element(node):
    buffer = np.zeros(2)
    buffer[0] = node[0]


def _add_to(node):
    buffer = np.zeros(2)
    buffer += node


def _object_element(node):
    buffer = np.empty(2, dtype=object)
    buffer[:] = node


DETACHING = {
    "np.array([node])": lambda x: np.array([x]),
    "np.array([node, node])": lambda x: np.array([x[0], x[1]]),
    "np.array([1.0, node])": lambda x: np.array([1.0, x[0]]),
    "np.asarray(node)": lambda x: np.asarray(x),
    "np.asarray(node, dtype=object)": lambda x: np.asarray(x, dtype=object),
    "np.array([node], dtype=object)": lambda x: np.array([x], dtype=object),
    "np.array(node, copy=None)": lambda x: np.array(x, copy=None),
    "np.float64(node)": lambda x: np.float64(x),
    "buffer[...] = node": _assign,
    "buffer[0] = node": _assign_element,
    "objects[:] = node": _object_element,
    "buffer += node": _add_to,
    "np.add(out=buffer)": lambda x: np.add(x, 1, out=np.zeros(2)),
    "np.sum(out=buffer)": lambda x: np.sum(x, out=np.zeros(())),
    "np.add.at": lambda x: np.add.at(np.zeros(2), [0, 1], x),
    "np.sum([node])": lambda x: np.sum([x, x]),
    "np.exp([node])": lambda x: np.exp([x, x]),
    "np.concatenate([[node]])": lambda x: np.concatenate([[x[0]], [1.0]]),
    "np.concatenate([node, [node]])": lambda x: np.concatenate([x, [x[0]]]),
    "np.stack([[node]])": lambda x: np.stack([[x, x], [x, x]]),
    "node + [node]": lambda x: x + [x[0], x[1]],
    "np.full(3, node)": lambda x: np.full(3, x),
    "np.full_like(array, node)": lambda x: np.full_like(np.zeros(2), x),
    "np.save": lambda x: np.save(io.BytesIO(), x),
    "np.savez": lambda x: np.savez(io.BytesIO(), x),
    "np.copyto": lambda x: np.copyto(np.zeros(2), x),
    "np.put": lambda x: np.put(np.zeros(2), [0], x),
    "np.fromiter": lambda x: np.fromiter(x, float),
    "np.vectorize": lambda x: np.vectorize(abs)(x),
    "np.frompyfunc": lambda x: np.frompyfunc(abs, 1, 1)(x),
    "np.ma.array": lambda x: np.ma.array(x),
    "np.poly1d": lambda x: np.poly1d(x),
    "np.fromfunction": lambda x: np.arange(x[0]),
    "np.random": lambda x: np.random.default_rng(0).normal(x),
    "math.exp": lambda x: math.exp(x[0]),
    "range": lambda x: range(x[0]),
    "astype(object)": lambda x: x.astype(object),
    "x[mask list]": lambda x: x[[x[0], 1]],
}


@pytest.mark.parametrize("text", DETACHING)
def test_nothing_detaches_and_nothing_makes_an_object_array(text):
    try:
        result = DETACHING[text](scg.parameter(np.array([1.0, 2.0])))
    except (scg.ScgError, ValueError) as error:  # NumPy itself wraps what is raised while it sets an element
        refusal = error if isinstance(error, scg.ScgError) else error.__cause__
        assert isinstance(refusal, scg.ScgError) and "test_coverage.py" in str(refusal)
    else:
        raise AssertionError(f"{text} returned {result!r}")
