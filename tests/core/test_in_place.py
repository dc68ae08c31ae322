"""In-place operators on nodes: NumPy's values where nobody else would see the change, refused where somebody would."""

import gc

import numpy as np
import pytest

import scg
from scg.errors import NotDifferentiable
from scg.testing import check_gradient

X = np.array([0.5, -1.0, 2.0])


@pytest.fixture(autouse=True)
def few_objects():
    """What other tests left is not looked through for names of a node."""
    gc.freeze()


def doubled(x):
    h = x * 1.0
    h += h
    return np.sum(h * x)


def reversed_onto_itself(x):
    h = x * 1.0
    h += h[::-1]
    return np.sum(h * x)


def transposed_onto_itself(x):
    h = np.outer(x, np.exp(x))
    h *= h.T
    return np.sum(h[0] * x)


def residual_that_stays(x):
    h = x * 2.0
    r = np.tanh(h)
    h += r
    return np.sum(h * r)


def several_results_that_stay(x):
    h = x * 2.0
    r, s, m = np.tanh(h), np.exp(h), np.max(h)
    h -= m
    h *= s
    return np.sum(h * r * s) * m


def a_result_of_a_view(x):
    h = x * 2.0
    r = np.tanh(h[::-1])
    h *= r
    return np.sum(h * r)


def a_result_of_a_view_of_a_view(x):
    h = x * 2.0
    r, s = np.tanh(h.reshape(3, 1).T), np.cos(h)
    h /= 2 + s
    return np.sum(h * r * s)


def results_in_a_list(x):
    h, kept = x * 2.0, []
    for _ in range(3):
        kept += [np.tanh(h), np.sin(h[1:])]
        h += kept[-2]
    return np.sum(h) + sum(np.sum(r) for r in kept)


def of_a_dict(x):
    d = {"h": x * 2.0, "r": 1.0}
    d["h"] += np.tanh(x)
    d["h"] *= d["h"]
    return np.sum(d["h"] * x)


def of_a_list_in_a_dict(x):
    d = {"layers": [x * 2.0, x * 3.0]}
    for k in range(2):
        r = np.sin(d["layers"][k])
        d["layers"][k] -= 0.5
        d["layers"][k] += r
    return np.sum(d["layers"][0] * d["layers"][1])


class State:
    def __init__(self, h):
        self.h = h

    def advance(self):
        self.h += np.cos(self.h)


def of_an_attribute(x):
    state = State(x * 2.0)
    state.h /= 4.0
    state.advance()
    return np.sum(state.h * x)


def of_a_shared_dict(x):
    d = {"h": x * 2.0}
    e = [d]
    e[0]["h"] += 1.0
    return np.sum(d["h"] * x)


def of_a_dict_and_a_name_that_is_not_read(x):
    h = x * 2.0
    d = {"h": h}
    d["h"] += np.tanh(x)
    h = x * 3.0
    return np.sum(d["h"] * h)


def of_an_attribute_and_a_name_in_branches(x):
    h = x * 2.0
    state = State(h)
    if x.ndim > 5:
        return np.sum(h) if x.ndim > 6 else np.sum(x)
    for k in range(2):
        state.h += k
        for h in (x, x * x):
            state.h *= h
    return np.sum(state.h)


def of_a_dict_in_a_loop_over_its_items(x):
    d = {"a": x * 2.0, "b": np.exp(x)}
    for name, h in d.items():
        r = np.tanh(h)
        d[name] += r
    return np.sum(d["a"] * d["b"])


def of_a_list_in_a_loop_over_both(x):
    held = [x * 2.0, np.exp(x)]
    for k, h in enumerate(held):
        held[k] += h
    for k, h, g in zip(range(2), held, [x, x * x], strict=True):
        held[k] -= g * h
    return np.sum(held[0] * held[1])


@pytest.mark.parametrize(
    "cost",
    [
        of_a_dict_and_a_name_that_is_not_read,
        of_an_attribute_and_a_name_in_branches,
        of_a_dict_in_a_loop_over_its_items,
        of_a_list_in_a_loop_over_both,
        of_a_dict,
        of_a_list_in_a_dict,
        of_an_attribute,
        of_a_shared_dict,
        doubled,
        reversed_onto_itself,
        transposed_onto_itself,
        residual_that_stays,
        several_results_that_stay,
        a_result_of_a_view,
        a_result_of_a_view_of_a_view,
        results_in_a_list,
    ],
)
def test_what_was_computed_of_a_node_does_not_see_it_change(cost):
    np.testing.assert_allclose(scg.value_and_grad(cost)(X)[0], cost(X), rtol=1e-14)
    check_gradient(cost, X)


def alias(x):
    h = x * 2.0
    r, g = np.tanh(h), h
    h += r
    return np.sum(g * r)


def in_a_container(x):
    h = x * 2.0
    held = (h, h)
    h += np.tanh(h)
    return np.sum(held[0])


def a_view_beside_results(x):
    h = x * 2.0
    v, r = h[::-1], np.tanh(h)
    h += r
    return np.sum(v)


def a_view_that_is_added(x):
    h = x * 2.0
    v = h[::-1]
    h += v
    return np.sum(v)


def a_view_of_a_view(x):
    h = x * 2.0
    v = h.reshape(3, 1).T
    h += np.tanh(h)
    return np.sum(v)


def twice_and_alias(x):
    h = x * 2.0
    g = h
    h += h
    return np.sum(g)


def of_a_caller(x):
    def callee(a):
        a += np.tanh(a)
        return np.sum(a)

    h = x * 2.0
    return callee(h) * np.sum(h)


def of_a_base(x):
    h = x * 2.0
    r, v = np.tanh(h), h[1:]
    v += np.cos(v)
    return np.sum(h * r)


def of_a_dict_and_a_name(x):
    h = x * 2.0
    d = {"h": h}
    d["h"] += 1.0
    return np.sum(h)


def of_a_copy_of_a_dict(x):
    d = {"h": x * 2.0}
    e = dict(d)
    d["h"] += 1.0
    return np.sum(e["h"])


def of_a_dict_with_a_view(x):
    d = {"h": x * 2.0}
    v = d["h"][1:]
    d["h"] += 1.0
    return np.sum(v)


def of_a_list_by_a_name(x):
    held = [x * 2.0]
    for h in held:
        h += 1.0
    return np.sum(held[0])


def of_a_dict_and_a_name_of_another_branch(x):
    h = x * 2.0
    d = {"h": h}
    total = 0.0
    for k in range(3):
        if k == 1:
            d["h"] += 1.0
        elif k == 2:
            total = np.sum(h)
    return total * np.sum(d["h"])


def of_a_dict_and_a_name_in_a_closure(x):
    h = x * 2.0
    d = {"h": h}
    seen = lambda: np.sum(h)
    d["h"] += 1.0
    return seen()


def of_a_dict_and_a_name_that_a_handler_reads(x):
    h = x * 2.0
    d = {"h": h}
    try:
        d["h"] += 1.0
        raise KeyError
    except KeyError:
        return np.sum(h)


def of_a_pair_that_is_kept(x):
    d = {"h": x * 2.0}
    for pair in d.items():
        d["h"] += 1.0
        d = {"h": pair[1]}
    return np.sum(d["h"])


def of_an_attribute_in_two_places(x):
    state = State(x * 2.0)
    other = State(state.h)
    state.h += 1.0
    return np.sum(other.h)


@pytest.mark.parametrize(
    "cost",
    [
        of_a_dict_and_a_name,
        of_a_dict_and_a_name_of_another_branch,
        of_a_dict_and_a_name_in_a_closure,
        of_a_dict_and_a_name_that_a_handler_reads,
        of_a_pair_that_is_kept,
        of_a_copy_of_a_dict,
        of_a_dict_with_a_view,
        of_a_list_by_a_name,
        of_an_attribute_in_two_places,
        alias,
        in_a_container,
        a_view_beside_results,
        a_view_that_is_added,
        a_view_of_a_view,
        twice_and_alias,
        of_a_caller,
        of_a_base,
    ],
)
def test_where_somebody_would_see_the_change_it_is_refused(cost):
    with pytest.raises(NotDifferentiable, match=r"write v = v [+*] .*test_in_place\.py"):
        scg.grad(cost)(X)
