"""The operations that drawn programs are made of: how each is written down for operands on which it is smooth and
well-conditioned."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from scg.testing.strategies.choices import BOUND, GAP, NoFit, Pick, Value, apart, size_of


class Operation(NamedTuple):
    """``write`` chooses operands and gives the text of an expression; it raises NoFit where there are none.

    It is differentiable ``order`` times.
    """

    name: str
    family: str
    write: Callable[[Pick], str]
    order: int = 99


OPERATIONS: dict[str, Operation] = {}


def operation(name: str, family: str, write: Callable[[Pick], str], order: int = 99) -> None:
    """Declare an operation that programs are drawn of: its name, its family, and how a call of it is written."""
    OPERATIONS[name] = Operation(name, family, write, order)


def _called(name: str) -> str:
    return name.removeprefix("scipy.")


def _family(name: str) -> str:
    return "elementwise" if name.startswith("np.") else "special"


def _apart(p: Pick, least: int) -> Value:
    x = p.vector(least)
    if not apart(x.array):
        raise NoFit
    return x


# Elementwise, by one operand: where it is drawn from.
FREE, POSITIVE = (-BOUND, BOUND), (0.5, np.inf)
UNARY: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ["np.negative", "np.positive", "np.square", "np.exp", "np.exp2", "np.expm1", "np.sin", "np.cos", "np.sinh"],
        FREE,
    ),
    **dict.fromkeys(
        ["np.cosh", "np.tanh", "np.arctan", "np.arcsinh", "np.deg2rad", "np.rad2deg", "np.sinc", "np.i0"], FREE
    ),
    **dict.fromkeys(["np.log", "np.log2", "np.log10", "np.sqrt", "np.reciprocal", "np.cbrt"], POSITIVE),
    **dict.fromkeys(["np.arcsin", "np.arccos", "np.arctanh"], (-0.75, 0.75)),
    "np.log1p": (-0.5, np.inf),
    "np.tan": (-1.0, 1.0),
    "np.arccosh": (1.5, np.inf),
    **{
        f"scipy.special.{name}": FREE
        for name in ["expit", "log_expit", "erf", "erfc", "erfcx", "dawsn", "ndtr", "log_ndtr", "j0", "j1"]
    },
    **{
        f"scipy.special.{name}": POSITIVE
        for name in ["gammaln", "digamma", "rgamma", "y0", "i0e", "k0", "k1e", "entr", "exp1", "spence"]
    },
    "scipy.special.gamma": (0.5, BOUND),
    "scipy.special.logit": (0.125, 0.875),
    "scipy.special.ndtri": (0.125, 0.875),
    "scipy.special.erfinv": (-0.75, 0.75),
    "scipy.special.ellipk": (-BOUND, 0.75),
    "scipy.special.exprel": FREE,
    "scipy.special.i1": FREE,
}
BINARY: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    **dict.fromkeys(["np.add", "np.subtract", "np.multiply", "np.logaddexp", "np.logaddexp2"], (FREE, FREE)),
    "np.divide": (FREE, POSITIVE),
    "np.power": (POSITIVE, (-2.0, 2.0)),
    "np.hypot": (FREE, POSITIVE),
    "np.arctan2": (FREE, POSITIVE),
    "scipy.special.beta": ((0.5, BOUND), (0.5, BOUND)),
    "scipy.special.betaln": (POSITIVE, POSITIVE),
    "scipy.special.xlogy": (FREE, POSITIVE),
    "scipy.special.xlog1py": (FREE, (-0.5, np.inf)),
    "scipy.special.rel_entr": (POSITIVE, POSITIVE),
    "scipy.special.kl_div": (POSITIVE, POSITIVE),
}


def _unary(p: Pick, name: str, domain: tuple[float, float]) -> str:
    return f"{name}({p.within(*domain).text})"


for _name, _domain in UNARY.items():
    operation(_name, _family(_name), partial(_unary, name=_called(_name), domain=_domain))


def _binary(p: Pick, name: str, first: tuple[float, float], second: tuple[float, float]) -> str:
    x = p.within(*first)
    return f"{name}({x.text}, {p.within(*second, x).text})"


def _operator(p: Pick) -> str:
    form, x = p.one(["({} + {})", "({} - {})", "({} * {})", "({} / {})"]), p.value()
    return form.format(x.text, p.within(*(POSITIVE if "/" in form else FREE), x).text)


def _kinked(p: Pick, name: str) -> str:
    x = p.value()
    y = p.one(
        [
            v
            for v in p.values
            if size_of(v.array.shape, x.array.shape) <= p.max_elements and np.min(np.abs(v.array - x.array)) > GAP
        ]
    )
    return f"{name}({x.text}, {y.text})"


def _threshold(p: Pick, x: np.ndarray) -> float:
    """A number in the midst of the elements of x, but none of them."""
    return float(p.one([t for t in (0.0, 0.28125, -0.28125, 1.03125, -1.03125) if np.min(np.abs(x - t)) > GAP]))


def _where(p: Pick) -> str:
    x = p.value()
    y, t = p.with_(x), _threshold(p, x.array)
    z = p.one([v for v in p.values if size_of(v.array.shape, x.array.shape, y.array.shape) <= p.max_elements])
    return f"np.where({x.text} > {t}, {y.text}, {z.text})"


def _clip(p: Pick) -> str:
    x = p.value(lambda x: np.min(np.abs(np.abs(x) - 1.03125)) > GAP)
    return f"np.clip({x.text}, -1.03125, 1.03125)"


for _name, (_first, _second) in BINARY.items():
    operation(_name, _family(_name), partial(_binary, name=_called(_name), first=_first, second=_second))
operation("operators", "elementwise", _operator)
for _name in ("np.maximum", "np.minimum", "np.fmax", "np.fmin"):
    operation(_name, "elementwise", partial(_kinked, name=_name))
operation("np.absolute", "elementwise", lambda p: f"np.absolute({p.value(lambda x: np.min(np.abs(x)) > GAP).text})")
operation("np.where", "elementwise", _where)
operation("np.clip", "elementwise", _clip)
for _name in ("scipy.special.gammainc", "scipy.special.gammaincc"):
    operation(_name, "special", partial(_binary, name=_called(_name), first=(0.5, BOUND), second=(0.5, BOUND)), order=1)
operation(
    "scipy.special.betainc",
    "special",
    lambda p: f"special.betainc({p.one([0.5, 2.0])}, 1.5, {p.within(0.125, 0.875).text})",
)
operation("scipy.special.jv", "special", lambda p: f"special.jv({p.one([0, 2, 3])}, {p.within(0.5, BOUND).text})")
operation("scg.special.logsumexp", "special", lambda p: _reduction(p, "scg.special.logsumexp"))
operation(
    "scg.special.softmax", "special", lambda p: f"scg.special.softmax({(x := p.array()).text}, axis={p.axis(x.array)})"
)
operation("scg.special.softplus", "special", lambda p: f"scg.special.softplus({p.value().text})")


# Reductions, accumulations, statistics.
def _reduction(p: Pick, name: str, fits: Callable[[np.ndarray], object] = lambda x: True) -> str:
    x = p.value(lambda x: x.ndim and fits(x))
    return f"{name}({x.text}{p.axes(x.array)})"


def _over_one_axis(
    p: Pick, form: str, low: int = 1, fits: Callable[[np.ndarray], object] = lambda x: True, least: int = 1
) -> str:
    """``form`` with an operand and one axis of at least ``least`` elements."""
    x = p.value(lambda x: x.ndim >= low and max(x.shape) >= least and fits(x))
    return form.format(
        x=x.text, axis=p.one([i for i in range(-x.array.ndim, x.array.ndim) if x.array.shape[i] >= least])
    )


def _spread(p: Pick, name: str) -> str:
    """A standard deviation, along an axis of at least two distinct elements."""
    x = p.value(lambda x: x.ndim and x.shape[-1] > 1 and np.min(np.std(x, -1)) > 0.125)
    return f"{name}({x.text}, axis={p.one([-1, x.array.ndim - 1])}{p.one(['', ', keepdims=True'])})"


for _name in ("np.sum", "np.mean", "np.prod", "np.var", "np.nansum", "np.nanmean", "np.add.reduce"):
    operation(_name, "reduction", partial(_reduction, name=_name))
for _name in ("np.max", "np.min", "np.ptp", "np.median"):
    operation(_name, "reduction", partial(_reduction, name=_name, fits=apart))
operation("np.std", "reduction", lambda p: _spread(p, "np.std"))
operation("np.average", "reduction", lambda p: f"np.average({(x := p.vector()).text}, weights=({x.text}**2 + 1.0))")
operation(
    "np.quantile",
    "reduction",
    lambda p: _over_one_axis(p, f"np.quantile({{x}}, {p.one([0.25, 0.6])}, axis={{axis}})", fits=apart),
)
operation("np.cov", "reduction", lambda p: f"np.cov({p.value(lambda x: x.ndim == 2 and x.shape[1] > 1).text})")
operation("np.cumsum", "reduction", lambda p: _over_one_axis(p, "np.cumsum({x}, axis={axis})"))
operation("np.cumprod", "reduction", lambda p: _over_one_axis(p, "np.cumprod({x}, axis={axis})"))
operation("np.sort", "sorting", lambda p: _over_one_axis(p, "np.sort({x}, axis={axis})", fits=apart))
operation("np.partition", "sorting", lambda p: f"np.partition({_apart(p, 2).text}, 1)")
operation("np.argsort", "sorting", lambda p: f"{(x := _apart(p, 1)).text}[np.argsort({x.text})]")
BY_INDEX = "np.take_along_axis({x}, np.argsort({x}, axis={axis}), axis={axis})"
operation("np.take_along_axis", "sorting", lambda p: _over_one_axis(p, BY_INDEX, fits=apart))
operation("np.diff", "signals", lambda p: _over_one_axis(p, "np.diff({x}, axis={axis})", least=2))
operation("np.gradient", "signals", lambda p: _over_one_axis(p, "np.gradient({x}, axis={axis})", least=2))
operation("np.trapezoid", "signals", lambda p: _over_one_axis(p, "np.trapezoid({x}, axis={axis})"))
operation("np.convolve", "signals", lambda p: f"np.convolve({p.vector().text}, {p.vector().text})")
operation("np.polyval", "signals", lambda p: f"np.polyval({p.vector().text}, {p.within(-1.0, 1.0).text})")


def _part(p: Pick, name: str) -> str:
    return f"np.{p.one(['real', 'imag'])}({name}({p.array().text}))"


for _name in ("np.fft.fft", "np.fft.ifft", "np.fft.rfft"):
    operation(_name, "fourier", partial(_part, name=_name))
operation(
    "np.fft.irfft", "fourier", lambda p: f"np.fft.irfft(np.fft.rfft({(x := p.array()).text})**2, {x.array.shape[-1]})"
)


# Contractions.
def _product(p: Pick, form: str, fits: Callable[[np.ndarray, np.ndarray], object]) -> str:
    """``form`` of two arrays that fit each other."""
    x, y = p.one(
        [(a, b) for a in p.values for b in p.values if a.array.ndim and b.array.ndim and fits(a.array, b.array)]
    )
    return form.format(x=x.text, y=y.text)


def _multiplies(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether x @ y is defined; numbers of axes that NumPy's matmul and dot treat alike."""
    return x.ndim < 3 and y.ndim < 3 and x.shape[-1] == y.shape[0]


def _stacks(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether x @ y is defined, stacks of matrices included."""
    return x.shape[-1] == y.shape[0 if y.ndim == 1 else -2] and np.isfinite(size_of(x.shape[:-2], y.shape[:-2]))


EINSUMS = (
    "i-> i,i-> i,i->i i,j->ij i,ij->j ij-> ij->ji ij->j ij,j->i ij,ij->i ij,jk->ik ij,kj->ki"
    " ijk->kij ijk->k ijk,k->ij ijk,ij->k ijk,ikj->i"
).split()


def _einsum(p: Pick) -> str:
    x = p.array(1, 3)
    form = p.one([form for form in EINSUMS if len(form.split("-")[0].split(",")[0]) == x.array.ndim])
    letters = form.split("-")[0].split(",")
    if len(letters) == 1:
        return f"np.einsum('{form}', {x.text})"
    sizes = dict(zip(letters[0], x.array.shape, strict=True))
    y = p.value(
        lambda y: (
            y.ndim == len(letters[1]) and all(sizes.get(s, n) == n for s, n in zip(letters[1], y.shape, strict=True))
        )
    )
    return f"np.einsum('{form}', {x.text}, {y.text})"


operation("np.matmul", "contraction", lambda p: _product(p, p.one(["({x} @ {y})", "np.matmul({x}, {y})"]), _stacks))
operation("np.dot", "contraction", lambda p: _product(p, "np.dot({x}, {y})", _multiplies))
operation(
    "np.inner", "contraction", lambda p: _product(p, "np.inner({x}, {y})", lambda x, y: x.shape[-1] == y.shape[-1])
)
operation("np.outer", "contraction", lambda p: f"np.outer({p.array().text}, {p.value().text})")
operation("np.kron", "contraction", lambda p: _product(p, "np.kron({x}, {y})", lambda x, y: x.ndim == y.ndim == 2))
operation("np.vdot", "contraction", lambda p: _product(p, "np.vdot({x}, {y})", lambda x, y: x.size == y.size))
OVER_FIRST = "np.tensordot({x}, {y}, axes=((0,), (-1,)))"
operation("np.tensordot", "contraction", lambda p: _product(p, OVER_FIRST, lambda x, y: x.shape[0] == y.shape[-1]))
operation(
    "np.cross",
    "contraction",
    lambda p: _product(p, "np.cross({x}, {y})", lambda x, y: x.shape == y.shape and x.shape[-1] == 3),
)
operation("np.einsum", "contraction", _einsum)


# Layout and indexing.
def _reshaped(p: Pick) -> str:
    x = p.value()
    n = x.array.size
    return f"np.reshape({x.text}, {p.one([(n,), -1, (1, n), (n, 1), *[(k, n // k) for k in (2, 3) if n % k == 0]])})"


def _joined(p: Pick, name: str) -> str:
    x = p.array()
    axis = p.one([*range(x.array.ndim), -1])
    y = p.value(
        lambda y: (
            y.ndim == x.array.ndim and np.delete(y.shape, axis).tolist() == np.delete(x.array.shape, axis).tolist()
        )
    )
    return f"{name}([{x.text}, {y.text}], axis={axis})"


def _stacked(p: Pick) -> str:
    x = p.value()
    y = p.value(lambda y: y.shape == x.array.shape)
    return f"np.stack([{x.text}, {y.text}], axis={p.one(range(-1, x.array.ndim + 1))})"


def _indexed(p: Pick) -> str:
    x = p.array()
    n = x.array.shape[0]
    mask = [i % 2 == 0 for i in range(n)]
    simple = ["[0]", "[-1]", "[::-1]", "[..., None]", "[None]", "[..., 0]", "[..., ::2]"] + (["[1:]"] if n > 1 else [])
    advanced = [f"[np.array([{n - 1}, 0, 0])]", f"[np.array({mask})]", f"[np.array([[0, {n - 1}], [0, 0]])]"]
    if x.array.ndim > 1:
        k = x.array.shape[1] - 1
        advanced += [
            f"[np.array([0, {n - 1}]), np.array([{k}, 0])]",
            f"[:, np.array([{k}, {k}])]",
            f"[np.array([{n - 1}, 0]), 0]",
        ]
        advanced += [f"[np.array([{n - 1}]), np.array([{k}, 0, {k}])]", f"[np.array({mask}), np.array([{k}])]"]
    return x.text + p.one([*simple, *advanced])


operation("np.reshape", "layout", _reshaped)
operation("np.ravel", "layout", lambda p: f"np.ravel({p.value().text})")
operation("np.transpose", "layout", lambda p: p.one(["np.transpose({})", "{}.T"]).format(p.array().text))
operation(
    "np.swapaxes", "layout", lambda p: f"np.swapaxes({(x := p.array(2)).text}, {p.axis(x.array)}, {p.axis(x.array)})"
)
operation(
    "np.moveaxis", "layout", lambda p: f"np.moveaxis({(x := p.array(2)).text}, {p.axis(x.array)}, {p.axis(x.array)})"
)
operation("np.expand_dims", "layout", lambda p: f"np.expand_dims({p.value().text}, {p.one([0, -1])})")
operation("np.squeeze", "layout", lambda p: f"np.squeeze({p.value(lambda x: 1 in x.shape).text})")
operation("np.broadcast_to", "layout", lambda p: f"np.broadcast_to({(x := p.value()).text}, {(2, *x.array.shape)})")
operation("np.concatenate", "layout", lambda p: _joined(p, "np.concatenate"))
operation("np.stack", "layout", _stacked)
operation(
    "np.split", "layout", lambda p: _over_one_axis(p, f"np.split({{x}}, [1], axis={{axis}})[{p.one([0, 1])}]", least=2)
)
operation("np.flip", "layout", lambda p: _over_one_axis(p, "np.flip({x}, {axis})"))
operation("np.roll", "layout", lambda p: _over_one_axis(p, f"np.roll({{x}}, {p.one([1, -1])}, axis={{axis}})"))
operation("np.repeat", "layout", lambda p: _over_one_axis(p, "np.repeat({x}, 2, axis={axis})"))
operation("np.tile", "layout", lambda p: f"np.tile({p.array().text}, {p.one([2, (2, 1)])})")
operation("np.rot90", "layout", lambda p: f"np.rot90({p.array(2).text}, {p.one([1, -1])})")
operation("np.pad", "layout", lambda p: f"np.pad({p.array(1).text}, 1, mode='constant')")
operation("np.tril", "layout", lambda p: f"{p.one(['np.tril', 'np.triu'])}({p.array(2).text})")
operation("operator.getitem", "indexing", _indexed)
operation("np.take", "indexing", lambda p: _over_one_axis(p, "np.take({x}, np.array([0, 0, -1]), axis={axis})"))
operation(
    "np.diag", "indexing", lambda p: f"np.diag({p.value(lambda x: x.ndim == 2 or (x.ndim == 1 and x.size < 5)).text})"
)
operation("np.diagonal", "indexing", lambda p: f"np.diagonal({p.array(2).text}, axis1=-2, axis2=-1)")
operation("np.trace", "indexing", lambda p: f"np.trace({p.array(2, 2).text})")

# Linear algebra, on matrices whose conditions are bounded.
operation("np.linalg.det", "linalg", lambda p: f"np.linalg.det({p.regular().text})")
operation("np.linalg.slogdet", "linalg", lambda p: f"np.linalg.slogdet({p.regular().text})[1]")
operation("np.linalg.inv", "linalg", lambda p: f"np.linalg.inv({p.regular().text})")
operation("np.linalg.pinv", "linalg", lambda p: f"np.linalg.pinv({p.regular().text})")
operation("np.linalg.matrix_power", "linalg", lambda p: f"np.linalg.matrix_power({p.square().text}, {p.one([2, 3])})")
operation("np.linalg.cholesky", "linalg", lambda p: f"np.linalg.cholesky({p.definite().text})")
operation("np.linalg.eigvalsh", "linalg", lambda p: f"np.linalg.eigvalsh({p.separated().text})")
operation("np.linalg.eigh", "linalg", lambda p: f"np.linalg.eigh({p.separated().text})[{p.one(['0]', '1] ** 2'])}")
# squared: the signs of vectors are nobody's
SVDS = ("np.linalg.svd({}, compute_uv=False)", "np.linalg.svd({})[0] ** 2")
operation("np.linalg.svd", "linalg", lambda p: p.one(SVDS).format(p.separated().text))
operation(
    "np.linalg.norm",
    "linalg",
    lambda p: f"np.linalg.norm({p.value(lambda x: x.ndim in (1, 2) and np.max(np.abs(x)) > 0.125).text})",
)


def _solve(p: Pick) -> str:
    a = p.regular()
    y = p.value(
        lambda y: (
            y.ndim
            and (y.ndim == 1 or y.ndim == a.array.ndim)
            and y.shape[0 if y.ndim == 1 else -2] == a.array.shape[-1]
        )
    )
    if y.array.ndim > 2 and y.array.shape[:-2] != a.array.shape[:-2]:
        raise NoFit
    return f"np.linalg.solve({a.text}, {y.text})"


operation("np.linalg.solve", "linalg", _solve)
