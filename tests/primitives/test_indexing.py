"""Indexing: drawn index expressions of every kind that NumPy takes, against ``np.add.at``."""

import numpy as np
import pytest

import scg
from scg.core.leaves import parameter
from scg.primitives import indexing

pytestmark = pytest.mark.fast

SHAPE = (3, 4, 2)


def _integers(rng, n, shape):
    """Positions with repeats, counted from either end: the same place by two names."""
    return rng.integers(-n, n, shape)


def _block(rng):
    """Shapes that broadcast against one another, the length one among them on purpose."""
    full = rng.choice([0, 1, 2, 3, 3, 4], rng.integers(1, 3))
    return [
        tuple(np.where(rng.random(full.size) < 0.4, 1, full)[rng.integers(0, full.size) :].tolist()) for _ in range(3)
    ]


def drawn_index(rng):
    """A random index expression for an array of ``SHAPE``, as a tuple."""
    shapes, parts, k = _block(rng), [], 0
    while k < len(SHAPE):
        n, kind = SHAPE[k], rng.integers(0, 10)
        if kind == 0:
            parts.append(
                slice(
                    *[None if rng.random() < 0.4 else int(rng.integers(-n, n + 1)) for _ in range(2)],
                    int(rng.choice([-2, -1, 1, 2])),
                )
            )
        elif kind == 1:
            parts.append(int(rng.integers(-n, n)))
        elif kind == 2:
            parts.append(rng.random(n) < 0.5)
        elif kind == 3 and k + 1 < len(SHAPE):
            parts.append(rng.random(SHAPE[k : k + 2]) < 0.3)
            k += 1
        elif kind == 4 and rng.random() < 0.5:
            break  # the rest of the axes is taken whole
        else:
            parts.append(_integers(rng, n, shapes[k]))
        k += 1
    for extra in (None, Ellipsis):
        if rng.random() < 0.2:
            parts.insert(int(rng.integers(0, len(parts) + 1)), extra)
    return tuple(parts)


def drawn_indices(number, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < number:
        index = drawn_index(rng)
        try:
            np.zeros(SHAPE)[index]
        except IndexError:  # shapes that do not broadcast
            continue
        found.append(index)
    return found


def added(index, g):
    right = np.zeros(SHAPE)
    np.add.at(right, index, g)
    return right


INDICES = drawn_indices(500)


def test_a_cotangent_is_added_wherever_its_element_came_from():
    rng = np.random.default_rng(1)
    x = rng.normal(size=SHAPE)
    for index in INDICES:
        g = rng.normal(size=x[index].shape)
        np.testing.assert_allclose(
            scg.grad(lambda x: np.sum(x[index] * g))(x), added(index, g), 1e-13, 1e-13, err_msg=str(index)
        )


def test_second_derivatives_add_up_too():
    """sum g x[index]^3 / 6 has the diagonal Hessian x times what is added for g."""
    rng = np.random.default_rng(2)
    x, v = rng.normal(size=(2, *SHAPE))
    for k, index in enumerate(INDICES[:150]):
        g = rng.normal(size=x[index].shape)
        cubic = lambda x: np.sum(x[index] ** 3 * g) / 6
        np.testing.assert_allclose(scg.hvp(cubic)(x, v), x * v * added(index, g), 1e-12, 1e-12, err_msg=str(index))
        if not k % 10:
            hessian = scg.hessian(cubic)(x).reshape(x.size, x.size)  # replays the backward pass under a leading axis
            np.testing.assert_allclose(
                hessian, np.diag(np.ravel(x * added(index, g))), 1e-12, 1e-12, err_msg=str(index)
            )


def test_nodes_as_indices_add_up_too_also_where_a_replay_changes_them():
    rng = np.random.default_rng(3)
    x, seen = parameter(rng.normal(size=SHAPE)), 0
    for index in INDICES:
        places = [k for k, i in enumerate(index) if isinstance(i, np.ndarray) and i.dtype != bool]
        if not places:
            continue
        seen += 1
        held = {k: parameter(index[k].astype(float)) for k in places}
        template = tuple([held[k].astype(int) if k in held else i for k, i in enumerate(index)])
        g = rng.normal(size=x.value[index].shape)
        found = scg.gradients(np.sum(x[template] * g), x, create_graph=True)
        np.testing.assert_allclose(found.value, added(index, g), 1e-13, 1e-13, err_msg=str(index))
        other = {k: np.zeros(index[k].shape) for k in places}
        moved = tuple([other[k].astype(int) if k in other else i for k, i in enumerate(index)])
        again = scg.replay(found, {held[k]: other[k] for k in places})
        np.testing.assert_allclose(again, added(moved, g), 1e-13, 1e-13, err_msg=str(moved))
        both = {held[k]: np.stack([index[k].astype(float), other[k]]) for k in places}
        stacked = scg.replay(found, both, batched=list(both))
        np.testing.assert_allclose(stacked, [added(index, g), added(moved, g)], 1e-13, 1e-13, err_msg=str(index))
    assert seen > 200


def test_a_plan_adds_them_up_as_well():
    rng = np.random.default_rng(4)
    x = rng.normal(size=SHAPE)
    for index in INDICES[:40]:
        g = rng.normal(size=x[index].shape)
        step = scg.compile(scg.grad(lambda x: np.sum(x[index] * g)))
        for _ in range(2):
            np.testing.assert_allclose(step(x), added(index, g), 1e-13, 1e-13, err_msg=str(index))


@pytest.mark.parametrize("first", [[0], [-3], [[0]], np.array([0], np.uint8)])
def test_one_place_that_is_stretched_over_many_is_named_many_times(first):
    weights = np.array([1.0, 10.0])
    np.testing.assert_array_equal(
        scg.grad(lambda x: np.sum(x[first, [1, 1]] * weights))(np.zeros((3, 4))), added2(first, [1, 1], weights)
    )
    np.testing.assert_array_equal(
        scg.grad(lambda x: np.sum(np.take(x, [1, -3], 1) @ weights))(np.zeros((1, 4))), [[0, 11, 0, 0]]
    )
    np.testing.assert_array_equal(
        scg.grad(lambda x: np.sum(np.take_along_axis(x, np.array([[1, 1, -3]]), 1)))(np.zeros((2, 4))),
        [[0, 3, 0, 0]] * 2,
    )


def added2(rows, columns, g):
    right = np.zeros((3, 4))
    np.add.at(right, (np.asarray(rows), np.asarray(columns)), g)
    return right


def test_without_the_sum_over_repeats_the_drawn_indices_fail(monkeypatch):
    """The saboteur: what is named twice overwrites."""
    monkeypatch.setattr(indexing, "_names_each_once", lambda index: True)
    wrong = 0
    for index in INDICES[:100]:
        g = np.ones(np.zeros(SHAPE)[index].shape)
        wrong += not np.array_equal(scg.grad(lambda x: np.sum(x[index]))(np.zeros(SHAPE)), added(index, g))
    assert wrong > 20


@pytest.mark.parametrize("shape", [(), (3,), (2, 0)])
@pytest.mark.parametrize("taken", [True, False])
def test_a_single_truth_as_an_index_takes_all_or_nothing(shape, taken):
    """x[True] is x[None], and x[False] is empty, also where the truth is a node."""
    x = np.full(shape, 2.0)
    node = parameter(x)
    truth = np.sum(node) >= 0 if taken else np.sum(node) < 0
    found = node[truth]
    np.testing.assert_array_equal(found.value, x[np.bool_(taken)])
    assert found.shape == x[np.bool_(taken)].shape
    np.testing.assert_array_equal(scg.gradients(np.sum(found**2), node), 2 * x * taken)
