"""ARM and DisARM: a sample and its antithetic partner."""

from typing import final

import numpy as np

from scg.core.node import Node, Value
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical, OneHotCategorical
from scg.estimators.tools import constant, logits_of, sampled, uniform
from scg.special import logsumexp, sigmoid
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order
from scg.stochastic.surrogate import Downstream


@final
class ARM(Elsewhere):
    """ARM: d/dl E[f(b)] = E[(f(b) - f(b'))(u - 1/2)], b = 1[u > sigma(-l)], b' = 1[u < sigma(l)], u uniform on (0, 1)
    (Yin and Zhou, 2019).

    For the logits l of a Bernoulli distribution. Two evaluations of the cost: here, and with all elements of the sample
    replaced by their partners at once. b is what was drawn; b' comes from its distribution given b, and u from the
    interval in which both come out so. First derivatives only.
    """

    second_derivatives = False
    requires = (Bernoulli, FixedSupport)
    partner = True

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta, l, b = _logits(down)
        flip = _flips(down, l, b)
        partner = abs(b - flip)
        m = sigmoid(_size(l))
        # u is uniform on (1 - m, m), of length 2m - 1, where the partner is b; else on the side of b, on (m, 1) or
        # (0, 1 - m), whose middle is 1/2 + (b - b') m/2
        weight = (b - partner) * (0.5 * m) + (uniform(down) - 0.5) * (flip * (2 - 3 * m) + (2 * m - 1))
        return np.sum(first_order(eta, (down.now() - _at_partner(down, partner)) * weight))


@final
class DisARM(Elsewhere):
    """DisARM, or U2G: d/dl E[f(b)] = E[(f(b) - f(b')) (-1)^b' 1[b != b'] sigma(|l|) / 2] (Dong, Mnih and Tucker, 2020;
    Yin et al., 2020).

    The mean of ARM over the noise u given the pair (b, b'). Two evaluations of the cost: here, and with all elements of
    the sample replaced by their partners at once. First derivatives only.

    One of K is a walk along K - 1 coins with P(z = k | z >= k) = sigma(a_k), each with its partner: the walks z and z'
    then give a_k (f(z) - f(z'))/2 times the weight above up to the end of the shorter walk, the score of the longer
    walk's coin (its sign turned where that is z') up to the end of the longer one, and zero beyond (after Dong, Mnih
    and Tucker, 2021).
    """

    second_derivatives = False
    requires = (FixedSupport,)
    partner = True
    offered = 3

    def objection(self, distribution: Distribution) -> str:
        if not isinstance(distribution, (Bernoulli, Categorical, OneHotCategorical)):
            return f"needs a Bernoulli or categorical distribution, got {distribution!r}"
        return super().objection(distribution)

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        if not isinstance(down.distribution, Bernoulli):
            return _along_sticks(down)
        eta, l, b = _logits(down)
        partner = abs(b - _flips(down, l, b))
        weight = (b - partner) * (0.5 * sigmoid(_size(l)))
        return np.sum(first_order(eta, (down.now() - _at_partner(down, partner)) * weight))


def _logits(down: Downstream) -> tuple[Value, Value, Value]:
    """The logits as a node over the sample, their values, and the sample, 0 or 1."""
    eta = np.broadcast_to(logits_of(down.distribution), down.shape)
    return eta, constant(down, eta), constant(down, down.node)


def _flips(down: Downstream, l: Value, b: Value) -> Value:
    """Whether the partner differs, given the sample: with probability min(1, exp(-(2b - 1) l)), which is exp(-|l|)
    where b is the likelier value, and 1 where it is not. Of the dtype of ``b``: 0 or 1."""
    unlikely = abs(b - (l > 0))
    return np.maximum(unlikely, constant(down, sampled(down, Bernoulli(probs=np.exp(-_size(l))))))


def _size(l: Value) -> Value:
    """|l|; as a node with a derivative also at 0, where the partner is certain from the one side and not from the
    other."""
    return np.where(l > 0, l, -l) if type(l) is Node else abs(l)


def _at_partner(down: Downstream, partner: Value) -> Value:
    return down.at(partner[None])[0]


def _along_sticks(down: Downstream) -> Value:
    """DisARM on the coins of the walk. Arrays over the sample's batch, and the coins along a last axis."""
    distribution, categories = down.distribution, down.distribution.categories
    eta = np.broadcast_to(_stick_logits(distribution.log_p), (*down.shape, categories - 1))
    a, k = constant(down, eta), np.arange(categories - 1)
    one_hot = bool(distribution.event_shape)
    z = np.sum(constant(down, down.node) * np.arange(categories), axis=-1) if one_hot else constant(down, down.node)
    z = z[..., None]
    reached, s = k <= z, 2 * (k == z).astype(a.dtype) - 1
    differs = np.exp(-np.maximum(s * a, 0))
    # P(b'_k = 1), given b_k where the walk came to it
    p = np.where(reached, np.where(s > 0, 1 - differs, differs), sigmoid(a))
    going = np.cumprod(1 - p, axis=-1)
    one = np.ones_like(going[..., :1])
    partner = sampled(
        down, Categorical(probs=np.concatenate([one, going], axis=-1) * np.concatenate([p, one], axis=-1))
    )
    other = constant(down, partner)[..., None]
    values = (other == np.arange(categories)).astype(a.dtype) if one_hot else other[..., 0]
    reached2, s2 = k <= other, 2 * (k == other).astype(a.dtype) - 1
    both = np.where(s != s2, s * sigmoid(abs(a)), 0)
    weight = np.where(
        reached & reached2, both, np.where(reached, s * sigmoid(-s * a), np.where(reached2, -s2 * sigmoid(-s2 * a), 0))
    )
    now = np.broadcast_to(down.now(), down.shape)
    f = now - down.at(values[None])[0]
    found = np.sum(first_order(eta, 0.5 * f[..., None] * weight))
    if distribution.probs is not None:  # p(z) = probs[z] also where they do not sum to one, which the walk does not see
        found = found + np.sum(first_order(np.broadcast_to(np.sum(distribution.probs, axis=-1), down.shape), now))
    return found


def _stick_logits(log_p: Value) -> Value:
    """a_k = log p_k - log sum_{j > k} p_j, for all k but the last."""
    categories = log_p.shape[-1]
    later = np.arange(categories) > np.arange(categories - 1)[:, None]
    return log_p[..., :-1] - logsumexp(np.where(later, log_p[..., None, :], -np.inf), axis=-1)
