"""Every primitive that is not smooth somewhere says where: found by zooming in on its values along lines through the
catalogue's operands."""

import importlib
import pkgutil
import sys
import warnings
import zlib

import numpy as np
import pytest
import scipy.special as sp

import scg
import scg.exact
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise, padded
from scg.core.node import Node
from scg.core.primitive import IMPLEMENTATIONS, Primitive
from scg.core.replay import replay
from scg.distributions import Normal
from scg.errors import NotDifferentiable
from scg.stochastic.sides import jump_side, sides
from tests.support.cases import all_cases
from tests.support.drawn import every

POINTS, ZOOMS = 65, 16
CASES = all_cases()
PARTS = 16


def operands(case, rng):
    """The two ends of a line of operands, as the catalogue draws them."""
    shapes = [(3,) if d.shape is None else d.shape for d in case.domains]
    return [[rng.uniform(d.low, d.high, s) for d, s in zip(case.domains, shapes, strict=True)] for _ in range(2)]


def made(case, leaves):
    return case.fn(*[x if d.make is None else d.make(x) for x, d in zip(leaves, case.domains, strict=True)])


def rough(values):
    """For every cell between three neighbours the second difference, where all are finite."""
    with np.errstate(all="ignore"):
        second = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    return np.where(np.isfinite(second), second, 0)


def zoomed(along, low, high, element):
    """How the largest second difference falls as the mesh is halved again and again around it, and the ends of the last
    mesh.

    By 4 for a smooth function, by 2 at a kink, not at all at a jump: the exponent is 2, 1 or 0.
    """
    sizes = []
    for _ in range(ZOOMS):
        s = np.linspace(low, high, 9)
        second = rough(along(s)[:, element])
        k = int(np.argmax(second)) + 1
        sizes.append(second[k - 1])
        low, high = s[max(k - 2, 0)], s[min(k + 2, 8)]
    exponents = np.log2(np.array(sizes[:-1]) / np.maximum(sizes[1:], 1e-300))
    return sizes, exponents, low, high


def not_smooth(node, leaves, line):
    """(low, high) around a place on the line at which an element of the node has a kink or a jump; None where none is
    seen."""

    def along(s):
        with np.errstate(all="ignore"):
            (found,) = replay([node], line(s), leaves)
        return np.reshape(found.raw if type(found) is Node else found, (len(s), -1))

    values = along(np.linspace(0, 1, POINTS))
    if values.dtype.kind not in "fc" or not values.size:
        return None
    second = rough(values)
    scale = 1 + np.max(np.abs(np.where(np.isfinite(values), values, 0)))
    for cell, element in {
        np.unravel_index(np.argmax(second), second.shape),
        np.unravel_index(np.argmax(second / (1e-9 + second.mean(axis=0))), second.shape),
    }:
        low, high = cell / (POINTS - 1), (cell + 2) / (POINTS - 1)
        sizes, exponents, low, high = zoomed(along, low, high, element)
        good = np.array(sizes[1:]) > 1e-12 * scale  # above rounding
        if np.sum(good) >= 8 and np.median(exponents[good][-6:]) < 1.5:
            return low, high
    return None


@pytest.mark.parametrize("part", range(PARTS))
def test_a_primitive_that_is_not_smooth_says_where(part):
    for case in CASES[part::PARTS]:
        says_where(case)


def says_where(case):
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    first, last = operands(case, rng)
    leaves = [scg.parameter(x) for x in first]
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        result = made(case, leaves)
        roots = [r for r in (result if isinstance(result, (tuple, list)) else [result]) if type(r) is Node]
        for node in ancestors(roots):
            moving = [o for o in node.operands if type(o) is Node]
            if not moving or type(node.raw) is tuple or not node.primitive.differentiable:
                continue  # what has no derivative is constant between jumps, and its own value tells
            if any(type(o.raw) is tuple or o.dtype.kind not in "fc" for o in moving):
                continue  # its steps are those of what it is made from
            try:
                place, ends = probed(node, moving, leaves, last)
            except (scg.ScgError, np.linalg.LinAlgError):
                continue  # the line leaves its domain
            if place is None:
                continue
            tell = node.primitive.steps or node.primitive.kinks
            assert tell is not None, f"{node.primitive} has a kink or a jump and says nothing of it"
            side = tell(*[padded(x, max(y.ndim for y in ends) - 1) for x in ends], **node.statics)
            assert np.any(side[0] != side[1]), (
                f"{node.primitive} has a kink or a jump between {place}, and its own function tells of none"
            )


def probed(node, moving, leaves, last):
    """The place on the line between the operands' values and those at the other end, and all operands at its two
    ends."""
    held = {o: scg.parameter(o.raw) for o in moving}
    alone = node.primitive(*[held.get(o, o) if type(o) is Node else o for o in node.operands], **node.statics)
    there = [x.raw if type(x) is Node else x for x in replay(moving, dict(zip(leaves, last, strict=True)))]
    change = {o: x - o.raw for o, x in zip(moving, there, strict=True)}

    def at(s):
        return {o: o.raw + np.reshape(s, (-1, *[1] * o.ndim)) * change[o] for o in moving}

    place = not_smooth(alone, list(held.values()), lambda s: {held[o]: x for o, x in at(s).items()})
    if place is None:
        return None, None
    inside = at(np.array(place))
    return place, [inside[o] if type(o) is Node else np.asarray(o)[None] for o in node.operands]


UFUNCS = [
    fn
    for fn, made in IMPLEMENTATIONS.items()
    if isinstance(fn, np.ufunc)
    and isinstance(made, Primitive)
    and type(made.axes) is type(elementwise)
    and made.differentiable
]


def jumps_along(fn, line):
    """Neighbouring places on a line, of s between 0 and 1, between which the value jumps, also from one infinity to the
    other: there the largest changes stay as they are cut in halves."""
    s = np.linspace(0, 1, 2001) + 0.37 / 2001
    with np.errstate(all="ignore"):
        values = fn(*line(s))
        change = np.abs(np.diff(values))
        change = np.where(np.isfinite(change), change, 0)
        for k in np.argsort(-change)[:8]:
            if change[k] < 20 * np.median(change) + 1e-6:
                return
            low, high = s[k], s[k + 1]
            for _ in range(30):
                middle = 0.5 * (low + high)
                a, b, c = fn(*line(np.array([low, middle, high])))
                low, high = (low, middle) if abs(b - a) > abs(c - b) else (middle, high)
            a, c = fn(*line(np.array([low, high])))
            if max(0.5 * change[k], 1e-3 * max(abs(a), abs(c))) < abs(c - a) < np.inf:
                yield low, high


def takes_no_derivative(made, k):
    x = [np.array(1.2)] * len(made.vjps)
    try:
        made.vjps[k] and made.vjps[k](np.array(1.0), made.fn(*x), *x)
    except (NotDifferentiable, TypeError):  # refused, or an integer
        return True
    return False


def silent_jumps(fn, made, dtype, rng):
    """Places at which a ufunc jumps in one of its operands, and its primitive tells of no other side."""
    found = []
    for trial in range(8):
        others = [np.array(rng.choice([-2.3, -0.7, 0.4, 1.7, 3.2])) for _ in range(fn.nin)]
        across, offset = trial % 2, (-1) ** (trial // 2) * 1.5 * abs(rng.standard_normal())
        for k in range(fn.nin):

            def line(s, k=k, others=others, across=across, offset=offset):
                moved = 16 * s - 8
                if dtype is complex:
                    moved = offset + 0.5j * moved if across else 0.5 * moved + 1j * offset
                return [
                    np.asarray(moved if i == k else np.broadcast_to(o, s.shape), dtype) for i, o in enumerate(others)
                ]

            if takes_no_derivative(made, k):
                continue
            try:
                places = list(jumps_along(fn, line))
            except TypeError:  # it takes no such numbers
                continue
            for low, high in places:
                ends = line(np.array([low - 1e-8, high + 1e-8]))
                tell = jump_side(made, [x.dtype.kind for x in ends])
                if tell is None or np.ptp(np.broadcast_to(tell(*ends), 2).astype(float)) == 0:
                    found.append((k, [x[0] for x in ends]))
    return found


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("fn", UFUNCS, ids=lambda fn: fn.__name__)
def test_a_function_that_jumps_or_has_a_pole_or_a_cut_says_where(fn, dtype):
    rng = np.random.default_rng(zlib.crc32(fn.__name__.encode()))
    with warnings.catch_warnings(action="ignore"):
        found = silent_jumps(fn, IMPLEMENTATIONS[fn], dtype, rng)
    assert not found, f"{fn.__name__} jumps at {found[:3]}, by operand, and says nothing of it"


MATRICES = {  # what is made of a square matrix, and may jump with it
    "inv": np.linalg.inv,
    "solve": lambda a: np.linalg.solve(a, np.ones(len(a))),
    "the left side": lambda a: np.linalg.solve(np.eye(len(a)) + 0 * a, a),
    "det": np.linalg.det,
    "sign": lambda a: np.linalg.slogdet(a)[0],
    "pinv": np.linalg.pinv,
    "pinv of a rank": lambda a: np.linalg.pinv(a, rcond=0.2),
    "pinv of a wide matrix": lambda a: np.linalg.pinv(a[:-1]),
    "lstsq": lambda a: np.linalg.lstsq(a, np.ones(len(a)), rcond=None)[0],
    "eigh": lambda a: np.linalg.eigh(a + a.T)[1],
    "eigenvalues": np.linalg.eigvalsh,
    "svd": lambda a: np.concatenate([np.ravel(x) for x in np.linalg.svd(a)]),
    "svd of a wide matrix": lambda a: np.linalg.svd(a[:-1], full_matrices=False)[2],
    "qr": lambda a: np.linalg.qr(a)[0],
    "qr of a tall matrix": lambda a: np.linalg.qr(a[:, 1:])[1],
    "norm": lambda a: np.linalg.norm(a, axis=0),
    "cholesky": lambda a: np.linalg.cholesky(a @ a.T + np.eye(len(a))),
}


def silent_jumps_of(fn, n, rng):
    """Places on a line of n x n matrices at which an element of ``fn`` jumps, and nothing that it is made of tells of
    another side."""
    first, last = rng.standard_normal((2, n, n))
    leaf = scg.parameter(first)
    result = fn(leaf)
    tells = [m for m in ancestors([result]) if jump_side(m.primitive, []) or m.primitive.jumps and m.operands]
    line = lambda s: first + np.reshape(s, (-1, 1, 1)) * (last - first)
    found = []
    for k in range(result.size):
        value = lambda s, k=k: np.array([np.ravel(fn(x))[k] for x in line(np.ravel(s))])
        for low, high in jumps_along(value, lambda s: [s]):
            here = sides(tells, {leaf: line(np.array([low - 1e-9, high + 1e-9]))}, 2)
            if not any([np.any(side[0] != side[1]) for side in here]):
                found.append((k, low))
    return found


@pytest.mark.parametrize("name", every(2, MATRICES))
def test_a_function_of_a_matrix_that_jumps_or_has_a_pole_says_where(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found = [place for n in (2, 3) for _ in range(2) for place in silent_jumps_of(MATRICES[name], n, rng)]
    assert not found, f"{name} jumps at {found[:3]}, by element and place, and says nothing of it"


@pytest.mark.parametrize("fn, dtype", [(np.reciprocal, float), (np.tan, float), (np.log, complex), (sp.gamma, float)])
def test_a_pole_or_a_cut_of_which_nothing_is_said_is_seen(fn, dtype):
    mute = scg.primitive(lambda x: fn(x), elementwise, lambda g, out, x: g)
    assert silent_jumps(fn, mute, dtype, np.random.default_rng(1))


def test_a_step_from_outside_is_integrated_as_one_inside():
    """z - floor(z / w) w, declared by a user under a name of their own: the pieces come from the declaration."""
    steps = lambda x: np.floor(x / 0.3)
    tooth = scg.primitive(
        lambda x: x - 0.3 * np.floor(x / 0.3), scg.axes.elementwise, lambda g, out, x: g, name="tooth", steps=steps
    )

    def cost(saw):
        return scg.exact.expectation(
            lambda t, rng: saw(scg.sample(Normal(t, 1.0), scg.ScoreFunction(), rng=rng)), np.array(0.1)
        )

    assert cost(tooth) == pytest.approx(cost(lambda z: np.remainder(z, 0.3)), rel=1e-12)


def mean_of(use):
    def cost(t, rng):
        return use(scg.sample(Normal(t, 1.0), scg.ScoreFunction(), rng=rng))

    return scg.exact.expectation(cost, np.array(0.3), full=True)


def silent(fn, axes=scg.axes.elementwise):
    """A primitive from outside that says nothing of where it is smooth."""
    return scg.primitive(fn, axes, lambda g, out, x: np.zeros_like(x), name="silent")


@pytest.mark.parametrize("axes", [scg.axes.elementwise, None])
@pytest.mark.parametrize("low, high", [(0.0, np.inf), (2.9, np.inf), (0.3, 0.32), (0.309, 0.311), (0.3172, 0.3174)])
def test_a_step_that_nobody_declared_is_found_or_refused_by_name(low, high, axes):
    """P(low < z < high), z ~ Normal(.3, 1), behind a function that cannot be looked into; P(z > 0) is .6179."""
    try:
        found = mean_of(silent(lambda x: np.where((x > low) & (x < high), 1.0, 0.0), axes))
    except scg.exact.ConvergenceError as error:
        assert "silent" in str(error) and "steps=" in str(error)
        return
    assert found.value == pytest.approx(sp.ndtr(high - 0.3) - sp.ndtr(low - 0.3), rel=1e-6)


def test_a_step_that_is_declared_is_integrated_however_narrow():
    for width in (1e-2, 1e-4, 1e-6):
        inside = scg.primitive(
            *(lambda x: np.where(np.abs(x - 0.31) < width, 1.0, 0.0), scg.axes.elementwise),
            lambda g, out, x: np.zeros_like(x),
            steps=lambda x: (x > 0.31 - width) * 1 + (x >= 0.31 + width),
        )
        want = sp.ndtr(0.01 + width) - sp.ndtr(0.01 - width)
        assert mean_of(inside).value == pytest.approx(want, rel=1e-6)


def test_what_did_not_settle_names_what_to_declare():
    saw = silent(lambda x: x - 0.003 * np.floor(x / 0.003))
    with pytest.raises(scg.exact.ConvergenceError, match=r"declare where silent, used at .*test_smoothness.*steps="):
        mean_of(saw)


def test_each_primitive_of_the_package_says_where_it_is_smooth_and_one_from_outside_may():
    for module in pkgutil.walk_packages(scg.__path__, "scg."):
        if "bridge" not in module.name and "__main__" not in module.name:  # which need what may not be installed
            importlib.import_module(module.name)
    kept = [x for name, module in list(sys.modules.items()) if name.startswith("scg.") for x in vars(module).values()]
    made = [x for x in [*IMPLEMENTATIONS.values(), *kept] if type(x) is Primitive]
    declared = {id(p): p for p in made if p.module.startswith("scg.")}.values()
    assert len(declared) > 300 and [p.name for p in declared if p.silent] == []
    f, vjp = lambda x: np.sin(3 * x), lambda g, out, x: 3 * g * np.cos(3 * x)
    assert scg.primitive(f, elementwise, vjp).silent and not scg.primitive(f, elementwise, vjp, kinks=False).silent
    assert (
        not scg.primitive(f, elementwise, vjp, kinks=lambda x: x > 0).silent
        and not scg.primitive(f, elementwise).silent
    )


def test_a_primitive_from_outside_that_is_declared_smooth_is_taken_at_its_word():
    bent = scg.primitive(lambda x: np.sin(3 * x), elementwise, lambda g, out, x: 3 * g * np.cos(3 * x), kinks=False)

    def mean(fn):
        def cost(theta, rng):
            return np.sum(fn(scg.sample(Normal(theta, 1.0), scg.Reparameterized(), rng=rng)))

        return scg.exact.expectation(scg.trace(cost, np.array(0.3), rng=np.random.default_rng(0)))

    assert abs(mean(bent) - np.exp(-4.5) * np.sin(0.9)) < 1e-12 and mean(bent) == mean(lambda x: np.sin(3 * x))
