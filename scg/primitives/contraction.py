"""Products that sum over axes: matmul and einsum, and what is made of them."""

import math
import operator
import string

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from scg.core import axes
from scg.core.primitive import implements, primitive
from scg.errors import ScgTypeError, here
from scg.primitives.joining import unstack
from scg.primitives.layout import as_array


def _rows(x):
    """A stack of matrices as one matrix of all their rows: one large product is twice as fast as many small ones."""
    return np.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _side_by_side(x):
    """A stack of matrices as one matrix of all their columns, so that a product with it also sums over the stack."""
    return np.reshape(np.moveaxis(x, -2, 0), (x.shape[-2], math.prod(x.shape[:-2]) * x.shape[-1]))


def _matmul_value(a, b):
    return (_rows(a) @ b).reshape(*a.shape[:-1], b.shape[-1]) if a.ndim > 2 == b.ndim else np.matmul(a, b)


def _matmul_left(g, out, a, b):
    return matmul_p(_side_by_side(g), _side_by_side(b).T) if a.ndim == 2 < b.ndim else matmul_p(g, b.mT)


def _matmul_right(g, out, a, b):
    return matmul_p(_rows(a).T, _rows(g)) if a.ndim > 2 == b.ndim else matmul_p(a.mT, g)


def _matvec_value(a, b):
    if b.ndim == 1:
        return (_rows(a) @ b).reshape(a.shape[:-1]) if a.ndim > 2 else a @ b
    return np.matmul(a, b[..., None])[..., 0]


def _matvec_right(g, out, a, b):
    return matvec_p(_rows(a).T, np.reshape(g, -1)) if a.ndim > 2 and b.ndim == 1 else matvec_p(a.mT, g)


def _stacked(a, b, out):
    rows = math.prod(a.shape[:-1])
    np.matmul(a.reshape(rows, a.shape[-1]), b, out.reshape(rows, out.shape[-1]))


matmul_p = primitive(
    _matmul_value,
    axes.contraction("ij,jk->ik", products=True),
    _matmul_left,
    _matmul_right,
    name="matmul",
    linear="each",
    into=lambda a, b: _stacked if len(a.shape) > 2 == len(b.shape) else np.matmul,
)
matvec_p = primitive(
    _matvec_value,
    axes.contraction("ij,j->i", products=True),
    lambda g, out, a, b: g[..., None] * b[..., None, :],
    _matvec_right,
    name="matvec",
    linear="each",
)
vecmat_p = primitive(
    lambda a, b: np.matmul(a[..., None, :], b)[..., 0, :],
    axes.contraction("i,ij->j", products=True),
    lambda g, out, a, b: matvec_p(b, g),
    lambda g, out, a, b: a[..., None] * g[..., None, :],
    name="vecmat",
    linear="each",
)
dot_p = primitive(
    lambda a, b: np.matmul(a[..., None, :], b[..., None])[..., 0, 0],
    axes.contraction("i,i->", products=True),
    lambda g, out, a, b: g[..., None] * b,
    lambda g, out, a, b: g[..., None] * a,
    name="dot",
    linear="each",
    into=lambda a, b: np.vecdot if a.dtype.kind == b.dtype.kind == "f" else None,
)


@implements(np.matmul)
def matmul(a, b, **kwargs):
    if kwargs:
        a, b = _only_dtype("matmul", (a, b), kwargs)
    a, b = as_array(a), as_array(b)
    if not a.ndim or not b.ndim:
        raise ScgTypeError(
            f"np.matmul needs at least one axis, got shapes {a.shape} and {b.shape}: use * for scalars ({here()})"
        )
    if a.ndim == 1:
        return dot_p(a, b) if b.ndim == 1 else vecmat_p(a, b)
    return matvec_p(a, b) if b.ndim == 1 else matmul_p(a, b)


def _only_dtype(name, operands, kwargs):
    dtype = kwargs.pop("dtype", None)
    if kwargs:
        raise ScgTypeError(
            f"np.{name} of a Node takes no {', '.join(kwargs)}=: move the axes with np.moveaxis ({here()})"
        )
    return [as_array(x).astype(dtype) if dtype else as_array(x) for x in operands]


@implements(getattr(np, "matvec", None))
def matvec(x1, x2, **kwargs):
    x1, x2 = _only_dtype("matvec", (x1, x2), kwargs)
    if x1.ndim < 2 or x2.ndim < 1:
        raise ValueError(f"matvec needs matrices and vectors, got shapes {x1.shape} and {x2.shape}")
    return matvec_p(x1, x2)


@implements(getattr(np, "vecmat", None))
def vecmat(x1, x2, **kwargs):
    x1, x2 = _only_dtype("vecmat", (x1, x2), kwargs)
    if x1.ndim < 1 or x2.ndim < 2:
        raise ValueError(f"vecmat needs vectors and matrices, got shapes {x1.shape} and {x2.shape}")
    return vecmat_p(_conjugate(x1), x2)


@implements(np.vecdot)
def vecdot(x1, x2, axis=-1, keepdims=False, **kwargs):
    x1, x2 = [np.moveaxis(x, axis, -1) if axis != -1 else x for x in _only_dtype("vecdot", (x1, x2), kwargs)]
    out = dot_p(_conjugate(x1), x2)
    return np.expand_dims(out, axis) if keepdims else out


def _conjugate(x):
    return np.conjugate(x) if x.dtype.kind == "c" else x


@implements(np.dot)
def dot(a, b):
    a, b = as_array(a), as_array(b)
    if a.ndim == 0 or b.ndim == 0:
        return np.multiply(a, b)
    return np.matmul(a, b) if b.ndim <= 2 else np.tensordot(a, b, (-1, -2))


@implements(np.inner)
def inner(a, b, /):
    a, b = as_array(a), as_array(b)
    return np.multiply(a, b) if a.ndim == 0 or b.ndim == 0 else np.tensordot(a, b, (-1, -1))


@implements(np.vdot)
def vdot(a, b, /):
    return np.matmul(_conjugate(np.ravel(as_array(a))), np.ravel(as_array(b)))


@implements(np.outer)
def outer(a, b):
    return np.multiply(np.reshape(as_array(a), (-1, 1)), np.reshape(as_array(b), (1, -1)))


@implements(np.tensordot)
def tensordot(a, b, axes=2):
    a, b = as_array(a), as_array(b)
    if np.iterable(axes):
        over_a, over_b = [list(i) if np.iterable(i) else [i] for i in axes]
    else:
        over_a, over_b = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    if len(over_a) != len(over_b) or any(a.shape[i] != b.shape[j] for i, j in zip(over_a, over_b, strict=True)):
        raise ValueError(f"shape-mismatch for sum: axes {over_a} of {a.shape} against {over_b} of {b.shape}")
    over_a, over_b = (
        [normalize_axis_index(i, a.ndim) for i in over_a],
        [normalize_axis_index(i, b.ndim) for i in over_b],
    )
    kept_a, kept_b = [i for i in range(a.ndim) if i not in over_a], [i for i in range(b.ndim) if i not in over_b]
    rows, columns, n = (
        [a.shape[i] for i in kept_a],
        [b.shape[i] for i in kept_b],
        math.prod([a.shape[i] for i in over_a]),
    )
    left = np.reshape(np.transpose(a, kept_a + over_a), (math.prod(rows), n))
    right = np.reshape(np.transpose(b, over_b + kept_b), (n, math.prod(columns)))
    return np.reshape(np.matmul(left, right), (*rows, *columns))


def _einsum_value(*operands, subscripts):
    large = sum(x.size for x in operands) > 4096 or len(operands) > 2
    return np.einsum(subscripts, *operands, optimize=large)  # a path, and BLAS, are worth their search only then


def _einsum_vjp(g, i, out, *operands, subscripts):
    ins, result = subscripts.split("->")
    terms = ins.split(",")
    others = [k for k in range(len(terms)) if k != i]
    text = ",".join([result, *[terms[k] for k in others]]) + "->" + terms[i]
    return einsum_p(g, *[operands[k] for k in others], subscripts=text)


einsum_p = primitive(_einsum_value, axes.einsum, every=_einsum_vjp, name="einsum", linear="each")
"""A sum of products in which every letter stands once in a term, and in the result or in two terms at least."""


@implements(np.einsum)
def einsum(*operands, optimize=False, dtype=None, order="K", casting="safe"):
    """A letter that stands in one term alone is summed first, as by NumPy with optimize=True: beside an infinity this
    may give inf where products that are all made first have inf * 0."""
    terms, result, arrays = _parsed(operands)
    if dtype is not None:
        arrays = [x.astype(dtype) for x in arrays]
    sizes: dict[str, int] = {}
    for term, x in zip(terms, arrays, strict=True):
        if len(term) != x.ndim:
            raise ValueError(f"einsum: the term {term!r} has {len(term)} letters for an operand of {x.ndim} axes")
        for letter, n in zip(term, x.shape, strict=True):
            if sizes.get(letter, 1) != n and n != 1 and sizes.get(letter, 1) != 1:
                raise ValueError(f"einsum: the letter {letter!r} stands for axes of lengths {sizes[letter]} and {n}")
            sizes[letter] = n if n != 1 else sizes.get(letter, 1)
    unknown = set(result) - set(sizes)
    if unknown or len(set(result)) < len(result):
        raise ValueError(f"einsum: the output {result!r} needs letters of the operands, each once")
    pairs = [_once(term, x, sizes) for term, x in zip(terms, arrays, strict=True)]
    counts = {letter: sum(letter in term for term, _ in pairs) for letter in sizes}
    pairs = [_summed(term, x, [c for c in term if counts[c] == 1 and c not in result]) for term, x in pairs]
    return einsum_p(*[x for _, x in pairs], subscripts=",".join(term for term, _ in pairs) + "->" + result)


def _once(term, x, sizes):
    """A letter that stands twice in a term means the diagonal; one that this operand has with length 1 only, none of
    its axes."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            if x.shape[i] != x.shape[j]:
                raise ValueError(
                    f"einsum: the letter {letter!r} stands for axes of lengths {x.shape[i]} and {x.shape[j]} of one"
                    " operand"
                )
            x = np.diagonal(x, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    stretched = tuple([i for i, c in enumerate(term) if x.shape[i] == 1 != sizes[c]])
    return "".join(c for i, c in enumerate(term) if i not in stretched), np.squeeze(x, stretched) if stretched else x


def _summed(term, x, letters):
    if not letters:
        return term, x
    return "".join(c for c in term if c not in letters), np.sum(x, axis=tuple([term.index(c) for c in letters]))


def _parsed(operands):
    """Terms without ellipsis, the explicit output, and the operands, from either of einsum's two forms."""
    if isinstance(operands[0], str):
        text, arrays = operands[0].replace(" ", ""), operands[1:]
        ins, arrow, result = text.partition("->")
        terms = ins.split(",")
    else:
        arrays, lists = operands[0 : len(operands) // 2 * 2 : 2], operands[1::2]
        terms = [_letters(sub) for sub in lists]
        arrow, result = ("->", _letters(operands[-1])) if len(operands) % 2 else ("", "")
    arrays = [as_array(x) for x in arrays]
    if len(terms) != len(arrays):
        raise ValueError(f"einsum: {len(terms)} terms for {len(arrays)} operands")
    bad = set("".join(terms) + result) - set(string.ascii_letters + ".")
    if bad:
        raise ValueError(f"einsum: invalid subscripts {''.join(sorted(bad))!r}")
    spare = [c for c in string.ascii_letters[::-1] if c not in "".join(terms)]
    ranks = [x.ndim - len(term) + 3 if "..." in term else 0 for term, x in zip(terms, arrays, strict=True)]
    dots = "".join(spare[: max(ranks)])
    terms = [term.replace("...", dots[len(dots) - rank :]) for term, rank in zip(terms, ranks, strict=True)]
    if arrow:
        return terms, result.replace("...", dots), arrays
    every = "".join(terms)
    return terms, dots + "".join(sorted(c for c in set(every) if every.count(c) == 1 and c not in dots)), arrays


def _letters(sub):
    """The letters of a list of numbers, in NumPy's order: 0 to 25 are A to Z, 26 to 51 are a to z, and so a result
    without a list has rising numbers."""
    labels = [i if i is Ellipsis else operator.index(i) for i in sub]
    if not all(i is Ellipsis or 0 <= i < 52 for i in labels):
        raise ValueError(f"einsum: a list of subscripts holds numbers from 0 to 51 and Ellipsis, got {list(sub)}")
    return "".join("..." if i is Ellipsis else (string.ascii_uppercase + string.ascii_lowercase)[i] for i in labels)


@implements(np.kron)
def kron(a, b):
    a, b = as_array(a), as_array(b)
    ndim = max(a.ndim, b.ndim)
    shape_a, shape_b = ((1,) * (ndim - x.ndim) + x.shape for x in (a, b))
    product = np.reshape(a, [m for n in shape_a for m in (n, 1)]) * np.reshape(b, [m for n in shape_b for m in (1, n)])
    return np.reshape(product, [m * n for m, n in zip(shape_a, shape_b, strict=True)])


@implements(np.cross)
def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = np.moveaxis(as_array(a), axisa, -1), np.moveaxis(as_array(b), axisb, -1)
    if not {a.shape[-1], b.shape[-1]} <= {2, 3}:
        raise ValueError(
            f"incompatible dimensions for cross product: it needs vectors of 2 or 3 elements, got {a.shape[-1]} and"
            f" {b.shape[-1]}"
        )
    (a0, a1, a2), (b0, b1, b2) = ([*unstack(x, axis=-1), 0][:3] for x in (a, b))
    last = a0 * b1 - a1 * b0
    if a.shape[-1] == b.shape[-1] == 2:
        return last
    out = np.stack(np.broadcast_arrays(a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, last), -1)
    return np.moveaxis(out, -1, axisc)
