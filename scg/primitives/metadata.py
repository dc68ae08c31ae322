"""What is not a derivative's business: answers about a node's shape, new arrays, tests of values; and the names that
refuse a Node.

A ``static`` answer is computed from the value and is no Node. A constant is a Node (a replay computes it again) whose
derivative is zero.
"""

import numpy as np
import numpy.lib.recfunctions as rfn
import scipy.special
from numpy._core import defchararray, strings

from scg.core.axes import elementwise
from scg.core.detaching import refuse
from scg.core.node import Node
from scg.core.primitive import implements, primitive, smooth_primitive
from scg.errors import NotDifferentiable, here
from scg.primitives.elementwise import UMATH
from scg.primitives.layout import as_array


def static(*callables):
    """Let callables answer for a Node as for its value: what they say is fixed when the graph is recorded."""
    for fn in callables:

        def implementation(*args, _fn=fn, **kwargs):
            return _fn(*map(_value_of, args), **{name: _value_of(value) for name, value in kwargs.items()})

        implementation.static = True  # type: ignore[attr-defined]
        implements(fn)(implementation)


def _value_of(value):
    return value.raw if type(value) is Node else value


# shapes, types and text
static(
    np.shape,
    np.ndim,
    np.size,
    np.result_type,
    np.can_cast,
    np.common_type,
    np.min_scalar_type,
    np.iscomplexobj,
    np.isrealobj,
)
static(
    np.may_share_memory,
    np.shares_memory,
    np.diag_indices_from,
    np.tril_indices_from,
    np.triu_indices_from,
    np.einsum_path,
)
static(np.array2string, np.array_repr, np.array_str)
# new arrays: of a node's shape, or asked for with like=node
static(np.zeros_like, np.ones_like, np.empty_like)
static(np.zeros, np.ones, np.empty, np.arange, np.eye, np.identity, np.tri, np.fromfunction)
static(np.frombuffer, np.fromfile, np.fromiter, np.fromstring, np.genfromtxt, np.loadtxt)


@implements(np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray)
def array(object, dtype=None, **options):
    """``np.array(x, like=node)``: lists of nodes become one node."""
    options.pop("device", None)
    x = (
        np.stack([array(item) for item in object])
        if isinstance(object, (list, tuple)) and _holds_node(object)
        else as_array(object)
    )
    x = x if dtype is None else x.astype(dtype)
    missing = options.get("ndmin", 0) - x.ndim
    return np.expand_dims(x, tuple(range(missing))) if missing > 0 else x


def _holds_node(tree):
    return type(tree) is Node or isinstance(tree, (list, tuple)) and any(map(_holds_node, tree))


@implements(np.require)
def require(a, dtype=None, requirements=None):
    return array(a, dtype)


@implements(np.full)
def full(shape, fill_value, dtype=None, order="C", *, device=None):
    return np.broadcast_to(array(fill_value, dtype), shape)


@implements(np.full_like)
def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None, *, device=None):
    return np.broadcast_to(array(fill_value, a.dtype if dtype is None else dtype), a.shape if shape is None else shape)


# parts of a number
_real = smooth_primitive(lambda x: x.real, elementwise, lambda g, out, x: g, name="real")
_imag = smooth_primitive(
    lambda x: x.imag, elementwise, lambda g, out, x: -1j * g if x.dtype.kind == "c" else None, name="imag"
)


@implements(np.real)
def real(val):
    return _real(val) if val.dtype.kind == "c" else val


@implements(np.imag)
def imag(val):
    return _imag(val)


@implements(np.angle)
def angle(z, deg=False):
    a = np.arctan2(np.imag(z), np.real(z))
    return a * (180 / np.pi) if deg else a


@implements(np.real_if_close)
def real_if_close(a, tol=100):
    if a.dtype.kind != "c":
        return a
    raise NotDifferentiable(f"np.real_if_close of a complex Node depends on its values: use np.real ({here()})")


@implements(np.nan_to_num)
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    if x.dtype.kind == "c":
        return nan_to_num(x.real, copy, nan, posinf, neginf) + 1j * nan_to_num(x.imag, copy, nan, posinf, neginf)
    most = float(np.finfo(x.dtype).max) if x.dtype.kind == "f" else 0
    finite = np.where(np.isnan(x), nan, x)
    finite = np.where(np.equal(x, np.inf), most if posinf is None else posinf, finite)
    return np.where(np.equal(x, -np.inf), -most if neginf is None else neginf, finite)


@implements(np.clip, UMATH["clip"])
def clip(a, a_min=None, a_max=None, *, min=None, max=None, dtype=None):
    """min(max(a, a_min), a_max); at a bound, operand and bound each take half of the cotangent, as at any tie."""
    a = as_array(a) if dtype is None else as_array(a).astype(dtype)
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)


_round = primitive(lambda x, decimals: np.round(x, decimals), elementwise, name="round")


@implements(np.round, np.around) if np.around is not np.round else implements(np.round)
def round(a, decimals=0):
    """Constant: the derivative of a step is zero."""
    return _round(a, decimals=decimals)


@implements(np.fix)
def fix(x):
    return np.trunc(x)


def _spherical(x, order):
    """j_n(x), for real x by j_n(-x) = (-1)^n j_n(x): older SciPy has no j_n of negative numbers."""
    if x.dtype.kind == "c":
        return np.asarray(scipy.special.spherical_jn(order, x)).astype(x.dtype)
    found = scipy.special.spherical_jn(order, np.abs(x))
    return np.asarray(np.where(x < 0, (-1) ** order * found, found)).astype(x.dtype)


# sin(pi x) / (pi x) is the spherical Bessel function j_0(pi x); (2n + 1) j_n' = n j_(n-1) - (n + 1) j_(n+1) needs no
# division by x
_bessel = smooth_primitive(
    _spherical,
    elementwise,
    lambda g, out, x, order: g * _bessel_slope(x, order),
    name="spherical_jn",
)


def _bessel_slope(x, n):
    return (
        (n * _bessel(x, order=n - 1) - (n + 1) * _bessel(x, order=n + 1)) / (2 * n + 1) if n else -_bessel(x, order=1)
    )


_sinc = smooth_primitive(np.sinc, elementwise, lambda g, out, x: g * float(np.pi) * _bessel_slope(float(np.pi) * x, 0))
_i0 = smooth_primitive(np.i0, elementwise, lambda g, out, x: g * scipy.special.i1(x))

# questions to the values: constants
for _test in (np.isclose, np.isposinf, np.isneginf, np.isreal, np.iscomplex):
    primitive(_test, elementwise)


@implements(np.allclose)
def allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    """A Node, so that an ``if`` on it is guarded."""
    return np.all(np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))


@implements(np.array_equal)
def array_equal(a1, a2, equal_nan=False):
    if np.shape(a1) != np.shape(a2):
        return False
    same = np.equal(a1, a2)
    return np.all(same | (np.isnan(a1) & np.isnan(a2)) if equal_nan else same)


@implements(np.array_equiv)
def array_equiv(a1, a2):
    try:
        np.broadcast_shapes(np.shape(a1), np.shape(a2))
    except ValueError:
        return False
    return np.all(np.equal(a1, a2))


_unravel = primitive(
    lambda i, shape, order, axis: np.unravel_index(i, shape, order)[axis], elementwise, name="unravel_index"
)
_ravel_multi = primitive(
    lambda *multi, dims, mode, order: np.ravel_multi_index(multi, dims, mode=mode, order=order),
    elementwise,
    name="ravel_multi_index",
)


@implements(np.unravel_index)
def unravel_index(indices, shape, order="C"):
    shape = tuple(shape) if np.iterable(shape) else (shape,)
    return tuple([_unravel(indices, shape=shape, order=order, axis=axis) for axis in range(len(shape))])


@implements(np.ravel_multi_index)
def ravel_multi_index(multi_index, dims, mode="raise", order="C"):
    return _ravel_multi(*multi_index, dims=dims, mode=mode, order=order)


@implements(np.ix_)
def ix_(*args):
    axes = [np.nonzero(x)[0] if x.dtype == bool else x for x in map(as_array, args)]
    return tuple([np.reshape(x, (1,) * i + (-1,) + (1,) * (len(axes) - i - 1)) for i, x in enumerate(axes)])


@implements(np.apply_along_axis)
def apply_along_axis(func1d, axis, arr, *args, **kwargs):
    moved = np.moveaxis(arr, axis, -1)
    lead = moved.shape[:-1]
    if 0 in lead:
        raise ValueError("Cannot apply_along_axis when any iteration dimensions are 0")
    results = [as_array(func1d(moved[i], *args, **kwargs)) for i in np.ndindex(lead)]
    inner = results[0].shape
    stacked = np.reshape(np.stack(results), lead + inner)
    axis %= arr.ndim
    return np.moveaxis(stacked, range(len(lead), stacked.ndim), range(axis, axis + len(inner))) if inner else stacked


@implements(np.apply_over_axes)
def apply_over_axes(func, a, axes):
    ndim = a.ndim
    for axis in np.atleast_1d(axes):
        axis = int(axis) % ndim
        result = func(a, axis)
        a = result if result.ndim == ndim else np.expand_dims(result, axis)
        if a.ndim != ndim:
            raise ValueError("function is not returning an array of the correct shape")
    return a


_WRITES = (
    "it writes into an array, and nodes are immutable: use np.where, np.concatenate or np.stack, and"
    " np.broadcast_to(node, shape) for np.full and np.full_like"
)
refuse(_WRITES, np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis)
refuse("a file would lose the graph: save node.value", np.save, np.savez, np.savez_compressed, np.savetxt)
refuse("it works on bits: use node.value", np.packbits, np.unpackbits)
refuse("a node holds no dates: use node.value", np.busday_count, np.busday_offset, np.is_busday, np.datetime_as_string)
refuse(
    "a node holds no fields: use a dictionary of nodes",
    *[getattr(rfn, name) for name in rfn.__all__ if hasattr(getattr(rfn, name), "_implementation")],
)
_texts = [fn for home in (strings, defchararray) for fn in vars(home).values() if hasattr(fn, "_implementation")]
refuse("a node holds numbers, not text: use node.value", *dict.fromkeys(_texts))
