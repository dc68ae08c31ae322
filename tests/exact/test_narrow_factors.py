"""Evidence of Gaussian chains and trees with factors that are narrow, or are not there, as coins say: against the sum
over all coins of the integral in closed form."""

import itertools

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.errors import ScgError
from tests.support.drawn import covering, first

S = scg.ScoreFunction()
LOG_2PI = np.log(2 * np.pi)


def gate(b, literals):
    """A product of coins b_c, or of 1 - b_c."""
    g = 1.0
    for c, positive in literals:
        g = g * (b[c] if positive else 1 - b[c])
    return g


def mean_of(b, literals):
    return sum([b[c] if positive else 1 - b[c] for c, positive in literals], 0.0) / len(literals)


def after(b, literals, log):
    for c, positive in literals:
        log = log * (b[c] if positive else 1 - b[c])
    return log


def apart(b, literals, z, x, s):
    """The logarithm of a density in two terms."""
    g = gate(b, literals)
    return -0.5 * g * ((x - z) / s) ** 2 - g * (np.log(s) + 0.5 * LOG_2PI)


def terms_that_compensate(b, literals, z, x, s):
    """The same with a square of positive sign, for which another one makes up."""
    g = gate(b, literals)
    return (
        g * (z / s) ** 2
        - 1.5 * g * (z / s) ** 2
        + g * z * x / s**2
        - g * (0.5 * (x / s) ** 2 + np.log(s) + 0.5 * LOG_2PI)
    )


def log_density(z, x, s):
    return dist.Normal(z, s).log_prob(x)


FORMS = {
    "before": lambda b, literals, z, x, s: gate(b, literals) * log_density(z, x, s),
    "after": lambda b, literals, z, x, s: after(b, literals, log_density(z, x, s)),
    "sum": lambda b, literals, z, x, s: mean_of(b, literals) * log_density(z, x, s),
    "where": lambda b, literals, z, x, s: np.where(gate(b, literals) == 1, log_density(z, x, s), 0.0),
    "apart": apart,
    "compensated": terms_that_compensate,
}


class Drawn:
    """A tree of Gaussians z_i ~ Normal(a_i z_parent, q_i) with one wide factor each, and a few factors behind coins."""

    def __init__(self, seed, scale_of, tree):
        rng = np.random.default_rng(seed)
        self.n, self.coins = 6, int(rng.integers(1, 4))
        self.parents = [int(i - 1 if rng.random() < 0.7 or not tree else rng.integers(i)) for i in range(1, self.n)]
        self.a, self.q = rng.uniform(-0.9, 0.9, self.n), rng.uniform(0.6, 1.4, self.n)
        self.p, self.x = rng.uniform(0.2, 0.8, self.coins), rng.normal(size=self.n)
        self.factors = []
        for _ in range(2):
            chosen = rng.choice(self.coins, int(rng.integers(1, self.coins + 1)), replace=False)
            literals = [(int(c), bool(rng.integers(2))) for c in chosen]
            form, i = str(rng.choice(list(FORMS))), int(rng.integers(self.n))
            self.factors.append((form, literals, i, float(rng.normal()), scale_of(rng)))

    def __call__(self, t, rng):
        b = [scg.sample(dist.Bernoulli(probs=p), S, rng=rng) for p in self.p]
        z = [scg.sample(dist.Normal(t, self.q[0]), S, rng=rng)]
        for i, parent in enumerate(self.parents, 1):
            z.append(scg.sample(dist.Normal(self.a[i] * z[parent], self.q[i]), S, rng=rng))
        total = sum([log_density(each, x, 1.0) for each, x in zip(z, self.x, strict=True)])
        for form, literals, i, x, s in self.factors:
            total = total + FORMS[form](b, literals, z[i], x, s)
        return total

    def evidence(self, t):
        """log sum_b p(b) int exp(-z' P z / 2 + h' z + c) dz, where int is exp(c + h' P^-1 h / 2) |2 pi / P|^(1/2)."""
        logs = []
        for b in itertools.product([0, 1], repeat=self.coins):
            rows, means = np.eye(self.n), np.zeros(self.n)
            for i, parent in enumerate(self.parents, 1):
                rows[i, parent] -= self.a[i]
            means[0] = t
            each = [(u, m, q, 1.0) for u, m, q in zip(rows, means, self.q, strict=True)]
            each += [(u, x, 1.0, 1.0) for u, x in zip(np.eye(self.n), self.x, strict=True)]
            for form, literals, i, x, s in self.factors:
                each.append((np.eye(self.n)[i], x, s, (mean_of if form == "sum" else gate)(b, literals)))
            precision = sum([w / s**2 * np.outer(u, u) for u, _, s, w in each])
            h = sum([w * m / s**2 * u for u, m, s, w in each])
            c = sum([-w * (0.5 * (m / s) ** 2 + np.log(s) + 0.5 * LOG_2PI) for _, m, s, w in each])
            c += np.sum(np.log(np.where(np.array(b) == 1, self.p, 1 - self.p)))
            size = 0.5 * self.n * LOG_2PI - 0.5 * np.linalg.slogdet(precision)[1]
            logs.append(c + 0.5 * h @ np.linalg.solve(precision, h) + size)
        return np.logaddexp.reduce(logs)


@pytest.mark.parametrize("seed", first(6, range(30)))
def test_evidence_with_narrow_factors_behind_coins_is_right_or_refused(seed):
    model = Drawn(seed, lambda rng: 10 ** rng.uniform(-4, -0.5), True)
    try:
        found = scg.exact.log_evidence(model, np.array(0.3), full=True)
    except ScgError:
        return
    assert abs(found.value - model.evidence(0.3)) <= 10 * found.error + 1e-9


@pytest.mark.parametrize("seed", first(4, range(100, 110)))
def test_evidence_of_wide_factors_is_not_refused(seed):
    model = Drawn(seed, lambda rng: rng.uniform(0.5, 1.5), False)
    found = scg.exact.log_evidence(model, np.array(0.3), full=True)
    assert abs(found.value - model.evidence(0.3)) <= 10 * found.error + 1e-9


@pytest.mark.parametrize(("coins", "width"), covering([0, 1, 3, 5], [0.3, 0.01, 1e-3, 1e-5], times=2))
def test_an_observation_that_counts_only_if_all_coins_say_so(coins, width):
    """A chain z_(i+1) ~ N(.4 z_i, 1) with N(z_i, 1) at .3, but for the fourth, of which it is N(z_4, width) at .7."""

    def model(t, rng):
        b, z, total = 1.0, 0.0, 0.0
        for _ in range(coins):
            b = b * scg.sample(dist.Bernoulli(probs=0.5), S, rng=rng)
        for i in range(8):
            z = scg.sample(dist.Normal(0.4 * z + (t if i == 0 else 0.0), 1.0), S, rng=rng)
            total = total + (b * log_density(z, 0.7, width) if i == 3 else log_density(z, 0.3, 1.0))
        return total

    def filtered(counts):
        m, v, total = 0.0, 1.0, 0.0
        for i in range(8):
            m, v = (0.4 * m, 0.16 * v + 1) if i else (m, v)
            if i == 3 and not counts:
                continue
            r, x = (width**2, 0.7) if i == 3 else (1.0, 0.3)
            total += -0.5 * (LOG_2PI + np.log(v + r) + (x - m) ** 2 / (v + r))
            m, v = m + v / (v + r) * (x - m), v * r / (v + r)
        return total

    share = 0.5**coins
    known = np.log(share * np.exp(filtered(True)) + (1 - share) * np.exp(filtered(False)))
    if width == 0.3:
        np.testing.assert_allclose(scg.exact.log_evidence(model, np.array(0.0)), known, rtol=1e-9)
    else:
        with pytest.raises(scg.exact.ConvergenceError, match="narrow|settle"):
            scg.exact.log_evidence(model, np.array(0.0))
