"""What objectives are given: lists are arrays, and what is wrong is named."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import objectives as o
from scg.errors import ScgTypeError, ScgValueError

pytestmark = pytest.mark.fast
Q = dist.Normal(0.0, 1.0)
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3))
Z = np.array([0.3, -1.0, 2.0])


def rng():
    return np.random.default_rng(0)


def model(z):
    return Q.log_prob(z) - z


def pair(z):
    return Q, -z


def filtered(**how):
    step = o.state_space(
        **{"initial": Q, "transition": lambda t, z: dist.Normal(z, 1.0), "observed": lambda t, z: -z * z, **how},
        particles=3,
    )
    return o.smc(step, 2, rng=rng())


OF_WEIGHTS = {
    "elbo": o.elbo,
    "iwae": o.iwae,
    "renyi": lambda w, axis=0: o.renyi(w, 0.5, axis),
    "jackknife": lambda w, axis=0: o.jackknife(w, 1, axis),
}
OF_SAMPLES = {
    "wake_theta": o.wake_theta,
    "wake_phi": o.wake_phi,
    "log_variance": o.log_variance,
    "thermodynamic": o.thermodynamic,
}


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_log_weights(name):
    fn = OF_WEIGHTS[name]
    assert fn(WEIGHTS).shape == (3,) and fn(WEIGHTS, axis=-1).shape == (4,)
    assert fn(WEIGHTS[:, 0].tolist()) == fn(WEIGHTS[:, 0])
    for given, kind, message in (
        ("a", ScgTypeError, "must be real numbers, got 'a'"),
        (None, ScgTypeError, "must be real numbers, got None"),
        (np.array([1j]), ScgTypeError, "must be real numbers, got complex"),
        (3.0, ScgValueError, r"axis of log-weights of shape \(\), got 0"),
        (model, ScgTypeError, "a model needs a guide"),
        (np.zeros((0, 3)), ScgValueError, "at least one sample along axis 0"),
    ):
        with pytest.raises(kind, match=message):
            fn(given)
    for axis in (2, 1.5, None):
        with pytest.raises(ScgValueError, match="axis must be an integer"):
            fn(WEIGHTS, axis=axis)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_held_samples(name):
    fn = OF_SAMPLES[name]
    assert fn(model, Q, Z).shape == () and fn(model, Q, Z.tolist()) == fn(model, Q, Z)
    assert fn(pair, Q, Z) == pytest.approx(fn(model, Q, Z), rel=1e-14)
    for arguments, kind, message in (
        ((Q, model, Z), ScgTypeError, "the first argument is the model, .* got Normal"),
        ((model, "q", Z), ScgTypeError, "guide must be a distribution, got str"),
        ((model, Q, 1.0), ScgValueError, r"axis of samples in front, of at least one, got shape \(\)"),
        ((model, Q, np.zeros(0)), ScgValueError, "of at least one"),
        ((lambda z: z[:2], Q, Z), ScgValueError, "both need one number a sample"),
        ((lambda z: (z, 1, 2), Q, Z), ScgTypeError, "got 3 values"),
        ((lambda z: (3.0, z), Q, Z), ScgTypeError, "a prior, a distribution"),
    ):
        with pytest.raises(kind, match=message):
            fn(*arguments)


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: o.hold(Q, samples=0, rng=rng()), ScgValueError, "samples must be at least 1"),
        (lambda: o.hold(Q, samples=1.5, rng=rng()), ScgTypeError, "samples must be an integer"),
        (lambda: o.sleep_phi(Z, Q), ScgTypeError, "guide must be a distribution, got ndarray"),
        (lambda: o.sleep_phi(Q, 1.0), ScgValueError, "axis of samples in front"),
        (lambda: o.iwae(model, guide=[], rng=rng()), ScgTypeError, "guide must be a distribution, or a list"),
        (lambda: o.iwae(model, guide=lambda z: Q, rng=rng()), ScgTypeError, "guide must be a distribution, or a list"),
        (lambda: o.thermodynamic(model, Q, Z, temperatures=[0, np.nan, 1]), ScgValueError, "rise from 0 to 1"),
        (lambda: o.smc("a", 2, rng=rng()), ScgTypeError, r"step must be a function of \(t, z, rng\), got 'a'"),
        (lambda: filtered(initial="q"), ScgTypeError, "initial must be a distribution, got str"),
        (lambda: filtered(transition=Q), ScgTypeError, r"transition must be a function of \(t, z\), got Normal"),
        (lambda: filtered(observed=None), ScgTypeError, "observed must be a function"),
        (lambda: filtered(guide=Q), ScgTypeError, "guide must be a function"),
        (lambda: filtered().filtered("a"), ScgTypeError, r"fn must be a function of \(z\)"),
        (lambda: filtered().smoothed(lambda t, z: Q, paths=2, rng=None), ScgTypeError, "smoothed needs rng="),
        (lambda: dist.Ordered(0.0, []), ScgValueError, "cutpoints must be at least one"),
    ],
)
def test_what_is_wrong_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("fn", [o.sumo, o.multilevel])
def test_estimates_without_bias_take_layers_and_pairs(fn):
    two = [Q, lambda z: dist.Normal(z, 1.0)]
    apart = lambda a, b: ([Q, dist.Normal(a, 1.0)], -b * b)
    whole = lambda a, b: Q.log_prob(a) + dist.Normal(a, 1.0).log_prob(b) - b * b
    assert fn(apart, guide=two, rng=rng()).value == pytest.approx(fn(whole, guide=two, rng=rng()).value, rel=1e-13)
    assert np.isfinite(
        scg.grad(lambda t, rng: fn(lambda z: (dist.Normal(t, 1.0), -z), guide=Q, rng=rng))(0.2, rng=rng())
    )
