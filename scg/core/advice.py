"""What to write in place of what a node cannot do, or of names that scg does not have: the words of refusals, and how
they are found."""

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import NoReturn

import numpy as np

from scg.core.aliases import Function
from scg.errors import NOT_THE_USERS, PACKAGE, ScgAttributeError, here

INSTEAD: dict[str, str] = {
    "numpy.polynomial.polynomial": "np.polyval(coefficients[::-1], x), which takes nodes, with the highest power first",
    "numpy.polynomial.polyfromroots": "np.poly(roots)[::-1]",
    "numpy.polynomial": "np.polyval(coefficients[::-1], x) for powers of x, or a sum of scipy.special.eval_chebyt(k, x)"
    " (eval_legendre, ...) times coefficients: they take nodes",
    **{
        f"numpy.polynomial.{module}": f"sum(c * scipy.special.{name}(k, x) for k, c in enumerate(coefficients))"
        for module, name in (
            ("chebyshev", "eval_chebyt"),
            ("legendre", "eval_legendre"),
            ("laguerre", "eval_laguerre"),
            ("hermite", "eval_hermite"),
            ("hermite_e", "eval_hermitenorm"),
        )
    },
    "scipy.linalg.expm": "v, w = np.linalg.eigh(a) and then (w * np.exp(v)) @ w.T, for a symmetric matrix a",
    "scipy.linalg.sqrtm": "v, w = np.linalg.eigh(a) and then (w * np.sqrt(v)) @ w.T, for a symmetric matrix a",
    "scipy.linalg.logm": "v, w = np.linalg.eigh(a) and then (w * np.log(v)) @ w.T, for a symmetric matrix a",
    "scipy.linalg.solve_triangular": "np.linalg.solve(np.tril(a), b)",
    "scipy.linalg.cho_solve": "np.linalg.solve(c.T, np.linalg.solve(c, b)) for a lower factor c",
    "scipy.signal.convolve": "np.convolve(a, b), for vectors",
    "scipy.integrate.trapezoid": "np.trapezoid(y, x)",
    "scipy.stats": "scg.distributions, as dist.Normal(loc, scale).log_prob(x)",
    "scipy.sparse": "matrix.toarray() @ node",
    "scipy.special.factorial": "scipy.special.gamma(node + 1)",
    "scipy.special.comb": "scipy.special.binom(n, k)",
    "scipy.special.perm": "scipy.special.poch(n - k + 1, k)",
    "numpy._core.full": "np.broadcast_to(node, shape)",
    **dict.fromkeys(
        ("numpy.lib._index_tricks_impl", "numpy.lib.index_tricks"),
        "np.concatenate, np.stack or np.column_stack in place of np.r_ and np.c_",
    ),
}
"""By ``package.function``, module or package, as SciPy or NumPy has it: what takes nodes."""

_OF_ARRAYS = tuple(
    f"scipy.{name}" for name in ("linalg", "fft", "signal", "ndimage", "interpolate", "spatial", "integrate", "special")
)

_GRADIENT = "scg.value_and_grad(fn)(x), or scg.gradients(cost, nodes) for nodes"
_VALUE = "np.asarray(node.value), a number of this run, which no gradient passes"
_DTYPES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32", "bool": "bool_"}
_DISTRIBUTION = "distribution.{}(...) of the distribution itself: a node is one sample"
_ATTRIBUTES = {
    **dict.fromkeys(("backward", "grad", "retain_grad"), _GRADIENT),
    **dict.fromkeys(("requires_grad", "requires_grad_"), "scg.parameter(array), or scg.grad(fn)(array)"),
    **dict.fromkeys(("detach", "detach_"), "scg.stop_gradient(node)"),
    **dict.fromkeys(("numpy", "cpu", "data", "tobytes", "tofile", "dump", "dumps", "flags", "strides"), _VALUE),
    **dict.fromkeys(("flat",), "np.ravel(node)"),
    **dict.fromkeys(("view",), "node.reshape(shape), or node.astype(dtype)"),
    **dict.fromkeys(("at",), "np.where(mask, new, node), or np.concatenate"),
    **dict.fromkeys(("clone", "contiguous", "cuda", "to"), "node: nodes are immutable, and arrays of NumPy"),
    **{name: f"node.astype(np.{dtype})" for name, dtype in _DTYPES.items()},
    **{name: _DISTRIBUTION.format(name) for name in ("log_prob", "entropy", "sample")},
    **dict.fromkeys(("permute",), "np.transpose(node, axes)"),
    **dict.fromkeys(("unsqueeze",), "np.expand_dims(node, axis)"),
    **dict.fromkeys(("setflags", "setfield", "itemset"), "np.where: nodes are immutable"),
}


def of_attribute(name: str, takes: Function) -> str:
    """What to write for an attribute that a node does not have; empty where nothing is known. ``takes`` says of a
    function whether it takes nodes."""
    if name in _ATTRIBUTES:
        return _ATTRIBUTES[name]
    fn = None if name.startswith("_") else getattr(np, name, None)
    if fn is not None and takes(fn):
        return f"np.{name}(node{'' if getattr(fn, 'nin', 2) == 1 else ', ...'})"
    return INSTEAD.get(f"scipy.special.{name}", "")


def absent(module: str, elsewhere: Mapping[str, str] = {}, rooms: Iterable[str] = ()) -> Function:
    """The ``__getattr__`` of a module, for names that it does not have: the error says what to write for a name of
    another library (``elsewhere``), for one that stands in another of our modules (``rooms``), for one that is spelt
    nearly as one of this module; it is Python's own where nothing is known."""

    def __getattr__(name: str) -> NoReturn:
        public = sys.modules[module].__all__
        way = elsewhere.get(name, "")
        if not way and not name.startswith("_"):
            homes = [f"{room}.{name}" for room in rooms if name in importlib.import_module(room).__all__]
            homes += [f"np.{name}"] if rooms and not homes and name in np.__all__ else []
            near = difflib.get_close_matches(name, public, 1, 0.75)
            way = " or ".join(homes) or "".join([f"{module}.{found}" for found in near])
        message = f"module {module!r} has no attribute {name!r}"
        if way:
            raise ScgAttributeError(f"{message}: write {way} ({here()})")
        raise AttributeError(message, name=name, obj=sys.modules[module])

    return __getattr__


def no_attribute(owner: object, name: str, elsewhere: Mapping[str, str]) -> AttributeError:
    """The error of an object without an attribute: what to write for one that other libraries have, Python's own for
    any other."""
    kind = type(owner).__name__
    if name in elsewhere:
        return ScgAttributeError(f"{kind} has no .{name}: write {elsewhere[name]} ({here()})")
    return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)


def of_caller(takes: Function) -> str:
    """What to write for the function of NumPy or SciPy that the user called and that asks a node for its array; empty
    where the user asks, or nothing is known."""
    called, frame = [], sys._getframe(1)
    while frame is not None and NOT_THE_USERS[frame.f_code.co_filename]:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            home = str(frame.f_globals.get("__name__", ""))
            called.append((home, _package(home), frame.f_code.co_name))
            wrapped = frame.f_locals.get("f")  # SciPy makes an array of what comes before it calls its function
            if home.startswith("scipy._lib") and isinstance(wrapped, FunctionType):
                called.append((wrapped.__module__, _package(wrapped.__module__), wrapped.__name__))
        frame = frame.f_back  # type: ignore[assignment]
    for module, package, name in reversed(called):
        known = INSTEAD.get(f"{package}.{name}") or INSTEAD.get(module) or INSTEAD.get(package)
        home = "np.fft" if package == "scipy.fft" else "np.linalg"
        fn = getattr(np.fft if package == "scipy.fft" else np.linalg, name, None)
        if known is None and package in ("scipy.fft", "scipy.linalg") and fn is not None and takes(fn):
            known = f"{home}.{name}"
        if known is not None:
            who = (package if name.startswith("_") else f"{package}.{name}").replace("numpy._core", "np")
            return f"{who} does not take a node: use {known}"
    public = [
        f"{package}.{name}"
        for _, package, name in called
        if package in _OF_ARRAYS and not name.startswith(("_", "<")) and not name.endswith("wrapper")
    ]
    if public:
        return f"{public[-1]} does not take a node: declare its derivative with scg.primitive, or pass node.value"
    return ""


def _package(module: str) -> str:
    return ".".join(module.split(".")[:2])
