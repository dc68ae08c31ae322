"""Reshape alignment against brute force: labels correspond exactly where row-major order puts the same element."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scg.core import axes
from scg.core.axes import broadcast_axes, refine
from scg.core.indices import Slot, blocks_together
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast

small = st.lists(st.integers(1, 4), max_size=4).map(tuple)


@st.composite
def reshapes(draw):
    """Two shapes of one size: a factorisation grouped in two ways, with ones strewn in, or its parts in another
    order."""
    primes = draw(st.lists(st.sampled_from([2, 2, 3]), max_size=5))

    def grouped(factors):
        shape, i = [], 0
        while i < len(factors):
            if draw(st.integers(0, 3)) == 0:
                shape.append(1)
            step = draw(st.integers(1, 3))
            shape.append(int(np.prod(factors[i : i + step])))
            i += step
        return tuple(shape + [1] * draw(st.integers(0, 1)))

    return grouped(primes), grouped(draw(st.permutations(primes)) if draw(st.booleans()) else primes)


def coordinates(factors, shape):
    """For each element the coordinate along each factor of each axis, as {label: array of the array's size}."""
    found = {}
    for index, own in zip(np.indices(shape).reshape(len(shape), math.prod(shape)), factors, strict=True):
        for label, size in reversed(own):
            assert label not in found
            found[label] = index % size
            index = index // size
    return found


@given(reshapes())
def test_the_factors_of_an_axis_multiply_to_its_length(shapes):
    before, after = shapes
    out, (source,) = refine(before, after)
    for factors, shape in ((source, before), (out, after)):
        assert [int(np.prod([n for _, n in axis], dtype=int)) for axis in factors] == list(shape)


@given(reshapes())
def test_shared_labels_are_equal_coordinates_of_the_same_element(shapes):
    before, after = shapes
    out, (source,) = refine(before, after)
    left, right = coordinates(source, before), coordinates(out, after)
    for label in left.keys() & right.keys():
        np.testing.assert_array_equal(left[label], right[label])


@given(reshapes())
def test_what_is_not_shared_lies_in_a_group_without_common_refinement(shapes):
    """Where row-major strides divide one another, everything is aligned: nothing is mixed without need."""
    before, after = shapes
    out, (source,) = refine(before, after)
    strides = sorted({int(np.prod(shape[k:], dtype=int)) for shape in shapes for k in range(len(shape) + 1)})
    if all(b % a == 0 for a, b in itertools.pairwise(strides)):
        assert coordinates(source, before).keys() == coordinates(out, after).keys()


@pytest.mark.parametrize(
    "before, after, shared",
    [
        ((6, 4), (2, 3, 4), 24),
        ((4, 6), (6, 4), 1),
        ((5, 4, 6), (5, 6, 4), 5),
        ((2, 3, 5), (30,), 30),
        ((), (1, 1), 1),
        ((4, 9, 2), (9, 4, 2), 2),
    ],
)
def test_how_much_of_a_reshape_is_aligned(before, after, shared):
    out, (source,) = refine(before, after)
    right = {label for axis in out for label, _ in axis}
    assert int(np.prod([n for axis in source for label, n in axis if label in right], dtype=int)) == shared


@given(st.lists(st.integers(0, 2), max_size=3).map(tuple))
def test_an_empty_array_has_nothing_to_align(shape):
    out, (source,) = refine((0, *shape), (*shape, 0))
    assert len(out) == len(source) == len(shape) + 1
    assert not {label for axis in out for label, _ in axis} & {label for axis in source for label, _ in axis}


@given(small, st.data())
def test_a_broadcast_operand_has_no_factor_where_it_is_stretched(out, data):
    shape = tuple(data.draw(st.sampled_from([n, 1])) for n in out[data.draw(st.integers(0, len(out))) :])
    factors = broadcast_axes(shape, out)
    position = np.broadcast_to(np.arange(np.prod(shape, dtype=int)).reshape(shape), out)
    for axis, own in enumerate(factors, len(out) - len(shape)):
        moves = out[axis] > 1 and bool((np.diff(position, axis=axis) != 0).any())
        assert (own != ()) >= moves
        assert own in ((), ((("out", axis), out[axis]),))


indices = st.lists(
    st.sampled_from(
        [slice(None), slice(1, None), slice(None, None, -1), slice(0, 3), 0, -1, None, np.array([0, 1]), Slot(1)]
    ),
    max_size=5,
).map(tuple)


@given(indices)
def test_advanced_parts_are_together_exactly_where_numpy_leaves_leading_axes_in_place(index):
    index = tuple(i for k, i in enumerate(index) if i is not None or k)
    array = np.empty((7,) + (3,) * sum(i is not None for i in index))
    filled = tuple(np.array([0, 2]) if isinstance(i, Slot) else i for i in index)
    plain, led = array[0][filled], array[(slice(None), *filled)]
    if blocks_together(index):
        assert led.shape == (7, *plain.shape)


picks = [
    slice(None),
    slice(1, None),
    slice(0, 3),
    slice(None, None, -1),
    1,
    None,
    np.array([2, 0]),
    np.array([[1], [2]]),
    np.array([True, False, True]),
]


@drawn(200)
@given(st.lists(st.sampled_from(picks), max_size=4), st.data())
def test_an_indexed_element_has_the_coordinates_of_the_axes_that_are_aligned(index, data):
    index = tuple(index)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(index)))
        index = (*index[:at], Ellipsis, *index[at:])
    named = sum(i is not None and i is not Ellipsis for i in index)
    shape = (3,) * (named + data.draw(st.integers(0, 2)))
    try:
        out = np.empty(shape)[index].shape
    except IndexError:  # arrays of indices that do not broadcast
        return
    result, (source,) = axes.index.align([shape], out, {"index": index})
    right = coordinates(result, out)
    for axis, own in enumerate(source):
        for label, size in own:
            if label in right:
                assert size == 3
                np.testing.assert_array_equal(np.indices(shape)[axis][index].reshape(-1), right[label])
    whole = sum(isinstance(i, slice) and i.indices(3) == (0, 3, 1) for i in index) + len(shape) - named
    assert sum(label in right for own in source for label, _ in own) == whole


def test_the_default_map_mixes_everything_and_knows_no_replicate_axis():
    out, (one, other) = axes.mixed.align([(2, 3), (3,)], (2,), {})
    labels = [{label for axis in factors for label, _ in axis} for factors in (out, one, other)]
    assert not labels[0] & labels[1] and not labels[0] & labels[2] and not labels[1] & labels[2]
    assert axes.mixed.lead((), (), {}) is None
