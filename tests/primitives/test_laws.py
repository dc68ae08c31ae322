"""The laws that every primitive keeps, over the catalogue (``tests/support/cases``), at drawn points, shapes and memory
layouts."""

import itertools
import warnings
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, seed, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import scg
from scg import replay
from scg.core import axes
from scg.core import replay as rerun
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.tree import leaves, rebuild
from scg.errors import ScgError, ScgValueError
from scg.primitives.layout import alias
from scg.testing import check_gradient
from tests.support.cases import Case, Domain, all_cases

EPS = float(np.finfo(float).eps)
BATCH = 3

LAYOUTS = {
    "C": lambda x: x.copy("C"),
    "Fortran": lambda x: x.copy("F"),
    "every other": lambda x: _inside(x, tuple([slice(1, None, 2)] * x.ndim), tuple([2 * n + 1 for n in x.shape])),
    "reversed": lambda x: _inside(x, tuple([slice(None, None, -1)] * x.ndim), x.shape),
    "stretched": lambda x: np.broadcast_to(x[:1], x.shape) if x.ndim else x,
}


def _inside(x, index, shape):
    """``x`` as a strided view of a larger array whose other elements are NaN."""
    home = np.full(shape, np.nan, x.dtype)
    home[index] = x
    return home[index]


class Drawn:
    """A case as a function of arrays, and a point at which it is defined."""

    def __init__(self, case, data):
        self.case, self.rng = case, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
        free = [i for i, domain in enumerate(case.domains) if domain.shape is None]
        self.shapes = [domain.shape for domain in case.domains]
        if free:
            drawn = data.draw(
                mutually_broadcastable_shapes(num_shapes=len(free), max_dims=2, max_side=3, min_side=0), label="shapes"
            )
            for i, shape in zip(free, drawn.input_shapes, strict=True):
                self.shapes[i] = shape
        self.operands = self.draw()

    def draw(self, *leading):
        """Another point of the same shapes, or several along leading axes."""
        return [
            self.rng.uniform(d.low, d.high, (*leading, *shape))
            for d, shape in zip(self.case.domains, self.shapes, strict=True)
        ]

    def __call__(self, *operands):
        made = [domain.make(x) if domain.make else x for domain, x in zip(self.case.domains, operands, strict=True)]
        return self.case.fn(*made)

    def results(self, operands):
        """The leaves of the result."""
        return [leaf for _, leaf in leaves(self(*operands))]

    def plain(self, operands):
        """The results on arrays; where NumPy refuses, Nodes must be refused too, and the draw is over."""
        try:
            return [np.asarray(y) for y in self.results(operands)]
        except (TypeError, ValueError, IndexError) as error:
            with pytest.raises((ScgError, type(error))):
                self.results([parameter(x) for x in operands])
            reject()

    def pulled(self, operands, seeds):
        """Results and gradients of sum(seed * result), both on Nodes."""
        inputs = [parameter(x) for x in operands]
        results = self.results(inputs)
        return results, _pull(results, seeds, inputs)


def _pull(results, seeds, inputs, create_graph=False):
    pairs = [(y, s) for y, s in zip(results, seeds, strict=True) if type(y) is Node and y.dtype.kind in "fc"]
    return (
        pull([y for y, _ in pairs], [s for _, s in pairs], inputs, create_graph)
        if pairs
        else [np.zeros(x.shape) for x in inputs]
    )


def _seeds(results, rng):
    seeds = [rng.standard_normal(y.shape) for y in results]
    return [
        s + 1j * rng.standard_normal(s.shape) if y.dtype.kind == "c" else s for s, y in zip(seeds, results, strict=True)
    ]


def _raw(y):
    return np.asarray(y.value if type(y) is Node else y)


def _same(got, expected, what, scale=0.0):
    """Equal shape and dtype, and values to 2^10 units of rounding at the largest value (or ``scale``): the orders of
    summation differ."""
    got, expected = _raw(got), _raw(expected)
    kinds = [f"{y.dtype}{y.shape}" for y in (got, expected)]
    assert kinds[0] == kinds[1], f"{what}: {kinds[0]}, expected {kinds[1]}"
    if got.dtype.kind not in "fc":
        np.testing.assert_array_equal(got, expected, what)
        return
    finite = expected[np.isfinite(expected)]
    np.testing.assert_allclose(got, expected, 0, 2**10 * EPS * np.max(np.abs(finite), initial=scale), err_msg=what)


def _typical(results, x):
    """The size of the results over that of an operand: what a derivative's terms may cancel from."""
    size = max([np.max(np.abs(y), initial=0) for y in results if y.dtype.kind in "fc"], default=0)
    return size / (np.max(np.abs(x), initial=0) or 1)


def _in_bytes(x):
    """The same array in memory that nobody can ever write to: it is not copied, so that its strides stay."""
    base = x
    while isinstance(base.base, np.ndarray):
        base = base.base
    offset = x.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return np.ndarray(x.shape, x.dtype, base.tobytes("A"), offset, x.strides)


def value_law(drawn, data):
    """fn on Nodes is fn on arrays, in value, shape and dtype, for any layout of memory; and so is the gradient."""
    layouts = [data.draw(st.sampled_from(sorted(LAYOUTS)), label="layout") for _ in drawn.operands]
    laid = [_in_bytes(LAYOUTS[name](x)) for name, x in zip(layouts, drawn.operands, strict=True)]
    plain = drawn.plain(laid)
    inputs = [parameter(x) for x in laid]
    assert all(p.raw.strides == x.strides for p, x in zip(inputs, laid, strict=True))
    results = drawn.results(inputs)
    assert len(results) == len(plain)
    for k, (y, z) in enumerate(zip(results, plain, strict=True)):
        assert type(y) is Node or drawn.case.order == 0, f"result {k} is detached: {type(y).__name__}"
        _same(y, z, f"result {k}")
    seeds = _seeds(plain, drawn.rng)
    _, expected = drawn.pulled([np.ascontiguousarray(x).reshape(x.shape) for x in laid], seeds)
    for k, (g, e) in enumerate(zip(_pull(results, seeds, inputs), expected, strict=True)):
        _same(g, e, f"gradient by operand {k}, layouts {layouts}", _typical(plain, laid[k]))


def derivative_law(drawn, data):
    """Derivatives to the case's order, at first in float64, and in float32; those of a constant are zero."""
    operands = [x.astype(np.float32) for x in drawn.operands]
    plain = drawn.plain(operands)
    widens = any(y.dtype in (np.float64, np.complex128) for y in plain) and not drawn.case.name.startswith("scg")

    def fn(*operands):
        result = drawn(*operands)
        return (
            rebuild(result, map(_narrowed, [y for _, y in leaves(result)]))
            if widens and operands[0].dtype == np.float32
            else result
        )

    try:
        check_gradient(fn, *operands, order=max(drawn.case.order, 1), rng=drawn.rng)
    except ScgValueError as error:
        if "do not converge" in str(error) or "not finite" in str(error):
            reject()
        raise


def special_point_law(drawn, data):
    """Derivatives where all operands are one number, such as 0: there a VJP takes its other branch, and must stay
    differentiable.

    Kinks and edges, where differences do not converge, are left out.
    """
    number = data.draw(st.sampled_from([0.0, 1.0, -1.0, 0.5]), label="number")
    if not drawn.case.order or any(domain.shape is not None for domain in drawn.case.domains):
        return
    drawn.operands = [
        np.full(shape, np.clip(number, d.low, d.high))
        for d, shape in zip(drawn.case.domains, drawn.shapes, strict=True)
    ]
    derivative_law(drawn, data)


def _narrowed(y):
    """A result of float32 operands that NumPy itself widens, in single precision again."""
    return y.astype({"f": np.float32, "c": np.complex64}[y.dtype.kind]) if y.dtype.kind in "fc" else y


def replay_law(drawn, data):
    """Entry r of a batched replay is a run with the r-th operands; so are its gradients, and a batched replay of the
    gradient."""
    drawn.plain(drawn.operands)
    inputs = [parameter(x) for x in drawn.operands]
    results = drawn.results(inputs)
    roots = [alias(y) for y in results if type(y) is Node]
    batches = drawn.draw(BATCH)
    seeds = _seeds([_raw(y) for y in results], drawn.rng)
    held = [parameter(s) if s.dtype.kind == "f" else s for s in seeds]
    gradients = _pull(results, held, inputs, create_graph=True) if drawn.case.order else []
    gradients = {k: g for k, g in enumerate(gradients) if type(g) is Node}
    keep = [k for k, y in enumerate(results) if type(y) is Node]
    spread = [np.broadcast_to(seeds[k], (BATCH, *seeds[k].shape)) for k in keep]
    for subset in _subsets(len(inputs)):
        entries = [[batches[i][r] if i in subset else x for i, x in enumerate(drawn.operands)] for r in range(BATCH)]
        runs = [drawn.plain(entry) for entry in entries]
        leading = {inputs[i]: parameter(batches[i]) for i in subset}
        with _watched() as looped:
            what = f"with operands {subset} batched (one by one: {looped})"
            found = replay(roots, leading, batched=list(leading), create_graph=True)
            for k, y in zip(keep, found, strict=True):
                _same(y, np.stack([run[k] for run in runs]), f"result {k} {what}")
            if not drawn.case.order:
                continue
            expected = [
                np.stack(column) for column in zip(*[drawn.pulled(entry, seeds)[1] for entry in entries], strict=True)
            ]
            again = replay(list(gradients.values()), {x: _raw(b) for x, b in leading.items()}, batched=list(leading))
            pulled = _pull(found, spread, list(leading.values()))
            for k, g in [*zip(gradients, again, strict=True), *zip(subset, pulled, strict=True)]:
                _same(g, expected[k], f"gradient {k} {what}", _typical(itertools.chain(*runs), drawn.operands[k]))


def _subsets(n):
    """Every set of operands that may be batched; of many operands, each alone, all but one, and all."""
    sizes = range(1, n + 1) if n <= 3 else sorted({1, n - 1, n})
    return [subset for size in sizes for subset in itertools.combinations(range(n), size)]


class _watched:
    """Names of primitives with an axis map that a batched replay nevertheless ran one by one."""

    def __enter__(self):
        self.honest, looped = rerun.run, []

        def run(primitive, arguments, batched, statics, size):
            mapped = primitive.axes is not None and primitive.axes is not axes.mixed and any(batched)
            if mapped and primitive.axes.lead(arguments, batched, statics) is None:
                looped.append(primitive.name)
            return self.honest(primitive, arguments, batched, statics, size)

        rerun.run = run
        return looped

    def __exit__(self, *_):
        rerun.run = self.honest


def alignment_law(drawn, data):
    """An element of an operand changes only those elements of the output that agree with it along every shared
    factor."""
    drawn.plain(drawn.operands)
    inputs = [parameter(x) for x in drawn.operands]
    results = [y for y in drawn.results(inputs) if type(y) is Node]
    if drawn.case.order:
        results += [g for g in _pull(results, _seeds(results, drawn.rng), inputs, create_graph=True) if type(g) is Node]
    for node in ancestors(results):
        if node.operands and node.primitive.axes is not None and not isinstance(node.raw, tuple):
            _check_alignment(node, drawn.rng)


def _check_alignment(node, rng):
    primitive, out = node.primitive, np.asarray(node.raw)
    values = [o.raw if type(o) is Node else o for o in node.operands]
    if any(isinstance(v, tuple) for v in values):
        return
    target, sources = primitive.axes.align([np.shape(v) for v in values], out.shape, node.statics)
    assert _lengths(target) == out.shape, f"{primitive.name}: factors {target} for an output of shape {out.shape}"
    for k, (value, source) in enumerate(zip(values, sources, strict=True)):
        assert _lengths(source) == np.shape(value), (
            f"{primitive.name}: factors {source} for operand {k} of shape {np.shape(value)}"
        )
        if np.asarray(value).dtype.kind not in "fcb" or not np.size(value):
            continue
        for at in {tuple(rng.integers(0, np.shape(value))) for _ in range(3)}:
            where = dict(_coordinates(source, at))
            allowed = np.ones(out.shape, bool)
            for axis, factors in enumerate(target):
                for label, coordinate in _decoded(factors, np.arange(out.shape[axis])):
                    if label in where:
                        allowed &= (coordinate == where[label]).reshape(
                            [-1 if i == axis else 1 for i in range(out.ndim)]
                        )
            for other in _others(np.asarray(value)[at]):
                changed = np.array(value)
                changed[at] = other
                try:
                    with warnings.catch_warnings(action="ignore"):
                        again = np.asarray(
                            primitive.fn(*[changed if i == k else v for i, v in enumerate(values)], **node.statics)
                        )
                except (ValueError, ArithmeticError):  # no such value exists for this operand
                    continue
                if again.shape == out.shape:
                    strayed = ~allowed & (again != out) & ~((again != again) & (out != out))
                    what = (
                        f"{primitive.name}: element {at} of operand {k} changes {np.argwhere(strayed)[:1]} of the"
                        f" output, {node.statics}"
                    )
                    assert not strayed.any(), what


def _others(value):
    return [~value] if isinstance(value, np.bool_) else [value * 1.25 + 0.01, np.nan]


def _lengths(factors):
    return tuple([int(np.prod([size for _, size in axis], dtype=int)) for axis in factors])


def _coordinates(factors, at):
    return [pair for axis, i in zip(factors, at, strict=True) for pair in _decoded(axis, i)]


def _decoded(axis, i):
    """(label, coordinate) for each factor of an axis at index i: the last is the fastest."""
    pairs = []
    for label, size in reversed(axis):
        pairs.append((label, i % size))
        i = i // size
    return pairs


CASES = all_cases()
SEEN = Counter()
COUNTED = [(case, SEEN[case.name] - 1) for case in CASES if SEEN.update([case.name]) is None]
IDS = [f"{case.name}-{k + 1}" for case, k in COUNTED]
SEVERAL = 1
LAWS = {
    "value": value_law,
    "derivative": derivative_law,
    "special": special_point_law,
    "replay": replay_law,
    "alignment": alignment_law,
}


def hold(law, case, examples, salt=""):
    """The law, for so many draws; the first is the simplest, without dimensions where shapes are free."""

    drawn_apart = (
        seed(zlib.crc32(f"{case.name} {salt}".encode())) if settings.default.derandomize else lambda test: test
    )

    @drawn_apart
    @settings(max_examples=examples)
    @given(st.data())
    def held(data):
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # such as the mean of nothing
            law(Drawn(case, data), data)

    held()


def each_law(drawn, data):
    free = any(domain.shape is None for domain in drawn.case.domains)
    for name, law in LAWS.items():
        if free or name != "special":
            law(Drawn(drawn.case, data), data)


@pytest.mark.parametrize(("case", "order"), [(c, 2 if k < SEVERAL else 1) for c, k in COUNTED], ids=IDS)
def test_laws(case, order):
    """To the second order for the first case of a name, and to the first for the others, which differ in options."""
    case = replace(case, order=min(case.order, order))
    hold(each_law, case, 2 if any(domain.shape is None for domain in case.domains) else 1)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_laws_at_length(case):
    hold(each_law, case, 100, "at length")


def _raw_value(x):
    return x.value if type(x) is Node else x


_wrong = scg.primitive(lambda x: np.sin(x), axes.elementwise, lambda g, out, x: -g * np.cos(x), name="wrong")
_stuck = scg.primitive(
    lambda x: np.exp(x), axes.elementwise, lambda g, out, x: g * np.where(abs(x) <= 0, 1, np.exp(x)), name="stuck"
)
_single = scg.primitive(
    lambda x: np.sin(x).astype(float), axes.elementwise, lambda g, out, x: g * np.cos(x), name="single"
)
_cumulated = scg.primitive(
    lambda x: np.cumsum(x, axis=0),
    axes.elementwise,
    lambda g, out, x: np.flip(np.cumsum(np.flip(g, 0), 0), 0),
    name="cumulated",
)
_crossed = scg.primitive(lambda x: x.T, axes.elementwise, lambda g, out, x: np.transpose(g), name="crossed")
_said = scg.primitive(lambda x, axis: np.sum(x, 0), axes.reduction, lambda g, out, x, axis: g, name="said")
_unrolled = scg.primitive(
    lambda x: np.ravel(x, "K"),
    None,
    lambda g, out, x: np.reshape(g, x.shape, "F" if x.flags.fnc else "C"),
    name="unrolled",
)
FREE, SQUARE = (Domain(),), (Domain(shape=(3, 3)),)

SABOTEURS = {
    "another value on Nodes": ("value", "result 0", lambda x: x * 2 if type(x) is Node else x * 3, FREE),
    "detached": ("value", "result 0 is detached", lambda x: _raw_value(x) * 2, FREE),
    "another dtype on Nodes": ("value", "float32", lambda x: np.astype(x, np.float32) if type(x) is Node else x, FREE),
    "accepts what NumPy refuses": (
        "value",
        "DID NOT RAISE",
        lambda x: x if type(x) is Node else x @ x,
        (Domain(shape=(2, 3)),),
    ),
    "reads memory in its own order": ("value", "gradient by operand 0, layouts", _unrolled, SQUARE),
    "wrong sign": ("derivative", "derivative by", _wrong, FREE),
    "float64 for float32": ("derivative", "precision must be kept", _single, FREE),
    "detached where |x| is 0": ("special", "derivative 2 by", _stuck, FREE),
    "an index from the values": (
        "replay",
        "result 0 with operands",
        lambda x: x[int(np.argmax(_raw_value(x)))],
        (Domain(shape=(7,)),),
    ),
    "mixes along the replicate axis": ("replay", "result 0 with operands", _cumulated, SQUARE),
    "cumulates, said to be elementwise": ("alignment", "cumulated: element", _cumulated, SQUARE),
    "transposes, said to be elementwise": ("alignment", "crossed: element", _crossed, SQUARE),
    "sums over axis 0, said to be over axis 1": ("alignment", "said: element", lambda x: _said(x, axis=(1,)), SQUARE),
}


@pytest.mark.parametrize("name", SABOTEURS)
def test_each_law_catches_its_saboteurs(name):
    law, message, fn, domains = SABOTEURS[name]
    prefix = "scg." if "float64" in name else ""  # what NumPy itself widens is allowed to widen
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        hold(LAWS[law], Case(prefix + name, fn, domains), 10, name)
    honest = {
        "value": np.sin,
        "derivative": np.sin,
        "special": np.exp,
        "replay": lambda x: np.cumsum(x, axis=0),
        "alignment": np.transpose,
    }
    hold(LAWS[law], Case("honest", honest[law], domains if law != "value" else SQUARE), 3, name)
