"""What is narrow along a continuous sample, and there at few values of coins only: drawn programs against the sum of
closed forms."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.errors import ScgError
from tests.support.drawn import first

S = scg.ScoreFunction()
T = 0.3


def literal(b, c, positive):
    return b[c] if positive else 1 - b[c]


def gate(b, literals):
    g = 1.0
    for c, positive in literals:
        g = g * literal(b, c, positive)
    return g


def after(b, literals, f):
    for c, positive in literals:
        f = f * literal(b, c, positive)
    return f


def chosen_in_turn(b, literals, f):
    for c, positive in literals:
        f = np.where(b[c] == 1, f, 0.0) if positive else np.where(b[c] == 1, 0.0, f)
    return f


def least(b, literals):
    g = 1.0
    for c, positive in literals:
        g = np.minimum(g, literal(b, c, positive))
    return g


def counted(b, literals):
    return sum([literal(b, c, positive) for c, positive in literals]) > len(literals) - 0.5


# how a spike, a function, counts at z where all literals are one
FORMS = {
    "before": lambda b, literals, z, spike: gate(b, literals) * spike(z),
    "after": lambda b, literals, z, spike: after(b, literals, spike(z)),
    "where": lambda b, literals, z, spike: np.where(gate(b, literals) == 1, spike(z), 0.0),
    "in turn": lambda b, literals, z, spike: chosen_in_turn(b, literals, spike(z)),
    "stacked": lambda b, literals, z, spike: np.prod(np.stack([literal(b, *x) for x in literals])) * spike(z),
    "least": lambda b, literals, z, spike: spike(z) * least(b, literals),
    "counted": lambda b, literals, z, spike: np.where(counted(b, literals), spike(z), 0.0),
    "far away": lambda b, literals, z, spike: spike(z + 1000.0 * (1 - gate(b, literals))),
}


class Drawn:
    """E z^2 + 2^n / w exp(-((z - m) / w)^2) where n literals of k coins are one, of z ~ Normal(t, 1)."""

    def __init__(self, seed, coins):
        rng = np.random.default_rng(seed)
        self.p = rng.uniform(0.3, 0.7, int(rng.integers(2, coins + 1)))
        self.spikes = []
        for _ in range(int(rng.integers(1, 3))):
            chosen = rng.choice(len(self.p), int(rng.integers(2, len(self.p) + 1)), replace=False)
            literals = [(int(c), bool(rng.integers(2))) for c in chosen]
            self.spikes.append((str(rng.choice(list(FORMS))), literals, float(rng.normal()), 10 ** rng.uniform(-6, -1)))

    def __call__(self, t, rng):
        z = scg.sample(dist.Normal(t, 1.0), S, rng=rng)
        b = [scg.sample(dist.Bernoulli(probs=p), S, rng=rng).astype(float) for p in self.p]
        total = z * z
        for form, literals, m, w in self.spikes:

            def spike(x, m=m, w=w, high=2.0 ** len(literals)):
                return high / w * np.exp(-(((x - m) / w) ** 2))

            total = total + FORMS[form](b, literals, z, spike)
        return total

    def exact(self):
        """E exp(-((z - m) / w)^2) = w / sqrt(w^2 + 2) exp(-(m - t)^2 / (2 + w^2)); the mean and d / dt."""
        value, slope = 1 + T * T, 2 * T
        for _, literals, m, w in self.spikes:
            share = np.prod([2 * self.p[c] if positive else 2 * (1 - self.p[c]) for c, positive in literals])
            part = share / np.sqrt(w * w + 2) * np.exp(-((m - T) ** 2) / (2 + w * w))
            value, slope = value + part, slope + part * 2 * (m - T) / (2 + w * w)
        return value, slope


@pytest.mark.parametrize("seed", first(5, range(24)))
def test_a_spike_that_few_values_of_coins_show_is_found(seed):
    program = Drawn(seed, 6)
    value, slope = program.exact()
    found = scg.exact.expectation(program, np.array(T), full=True)
    assert abs(found.value - value) <= 10 * found.error + 1e-9
    if seed % 3 == 0:
        found = scg.exact.gradient(program, np.array(T), full=True)
        assert abs(found.value - slope) <= 10 * found.error + 1e-8


@pytest.mark.parametrize("seed", first(3, range(100, 106)))
def test_a_spike_behind_more_coins_is_found_or_refused(seed):
    program = Drawn(seed, 9)
    try:
        found = scg.exact.expectation(program, np.array(T), full=True)
    except ScgError:
        return
    assert abs(found.value - program.exact()[0]) <= 10 * found.error + 1e-9


class Chain(Drawn):
    """The same of the last of seven samples z_i ~ Normal(z_(i-1) / 2, 1), which are eliminated."""

    def __call__(self, t, rng):
        z = [t]
        for _ in range(6):
            z.append(scg.sample(dist.Normal(0.5 * z[-1], 1.0), S, rng=rng))
        total = super().__call__(0.5 * z[-1], rng)
        return total + sum([each * each for each in z[1:]])

    def exact(self):
        m, v, value = T, 0.0, 0.0
        for _ in range(7):
            m, v = 0.5 * m, 0.25 * v + 1
            value += m * m + v
        for _, literals, x, w in self.spikes:
            share = np.prod([2 * self.p[c] if positive else 2 * (1 - self.p[c]) for c, positive in literals])
            value += share / np.sqrt(w * w + 2 * v) * np.exp(-((x - m) ** 2) / (2 * v + w * w))
        return value


@pytest.mark.parametrize("seed", first(4, range(12)))
def test_a_spike_that_comes_near_at_one_of_many_values_of_coins_is_refused(seed):
    program, rng = Chain(seed, 9), np.random.default_rng(seed)
    program.p = np.full(8, 0.5)
    program.spikes = [("far away", [(c, bool(rng.integers(2))) for c in range(8)], 0.2, 1e-4)]
    with pytest.raises(scg.exact.ConvergenceError, match="narrow"):
        scg.exact.expectation(program, np.array(T))


@pytest.mark.parametrize("seed", first(6, range(20)))
def test_a_spike_along_a_chain_is_refused_whatever_coins_hide_it(seed):
    program = Chain(seed, 9)
    narrow = [(form, literals, m, 1e-3 * w) for form, literals, m, w in program.spikes]
    for spikes in (narrow, [(form, literals, m, 1.0 + w) for form, literals, m, w in program.spikes]):
        program.spikes = spikes
        try:
            found = scg.exact.expectation(program, np.array(T), full=True)
        except ScgError:
            assert spikes is narrow
            continue
        assert abs(found.value - program.exact()) <= 10 * found.error + 1e-8


def test_a_spike_of_two_samples_behind_coins():
    """E exp(-((x - y) / w)^2) / w = 1 / sqrt(w^2 + 4) of standard normal numbers."""
    w = 1e-4

    def cost(t, rng):
        x, y = [scg.sample(dist.Normal(t, 1.0), S, rng=rng) for _ in range(2)]
        a, b = [scg.sample(dist.Bernoulli(probs=0.5), S, rng=rng) for _ in range(2)]
        return x * y + 4 * a * (1 - b) * np.exp(-(((x - y) / w) ** 2)) / w

    found = scg.exact.expectation(cost, np.array(0.0), full=True)
    assert abs(found.value - 1 / np.sqrt(w * w + 4)) <= 10 * found.error + 1e-9
