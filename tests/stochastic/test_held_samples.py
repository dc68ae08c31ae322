"""Samples whose value is held while their parameters change from replicate to replicate."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgValueError

MADE = {
    "a number": (lambda p: dist.Normal(p, np.exp(p)), ()),
    "rows of vectors": (lambda p: dist.Normal(p, 1.0), (3,)),
    "an event": (lambda p: dist.Dirichlet(np.exp(p)), (2,)),
    "a choice": (lambda p: dist.Categorical(logits=p), ()),
}


@pytest.mark.parametrize("name", MADE)
def test_the_value_stays_and_parameters_are_checked_once_for_all_replicates(name, monkeypatch):
    made, shape = MADE[name]
    p = scg.parameter(np.array([0.1, -0.4, 0.7]))
    z = scg.sample(made(p), scg.ScoreFunction(), rng=np.random.default_rng(0), shape=shape)
    many = np.random.default_rng(1).normal(size=(200, 3))
    kind, calls = type(made(many[0])), []
    checked = kind.recheck
    monkeypatch.setattr(kind, "recheck", lambda self: calls.append(1) or checked(self))
    (value,) = scg.replay([z], {p: many}, [p])
    assert value.shape == (200, *z.shape) and (value == z.raw).all()
    assert len(calls) == 1


def test_parameters_that_fit_no_replicate_are_refused():
    p = scg.parameter(np.array(1.0))
    z = scg.sample(dist.Normal(0.0, p), scg.ScoreFunction(), rng=np.random.default_rng(0))
    with pytest.raises(ScgValueError, match="scale"):
        scg.replay([z], {p: np.array([1.0, -1.0, 2.0])}, [p])
