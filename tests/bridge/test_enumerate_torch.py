"""Every outcome of the draws of a program in PyTorch."""

import numpy as np
import pytest

import scg
from scg import bridge
from scg import distributions as dist
from scg.bridge import NotAFunctionOfItsDraws, TooManyOutcomes
from scg.errors import ScgTypeError, ScgValueError

torch = pytest.importorskip("torch")
td = torch.distributions

pytestmark = pytest.mark.fast

P = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
THETA = torch.tensor([0.4, -0.7, 1.1], dtype=torch.float64)


def enumerated(fn, *args, **options):
    return bridge.enumerate(fn, *args, framework="torch", **options)


DISTRIBUTIONS = {
    "Bernoulli": td.Bernoulli(P),
    "Binomial": td.Binomial(3, P),
    "OneHotCategorical": td.OneHotCategorical(P),
    "OneHotCategoricalStraightThrough": td.OneHotCategoricalStraightThrough(P),
    "Multinomial": td.Multinomial(3, P),
    "Geometric": td.Geometric(P[:1]),
    "Poisson": td.Poisson(4 * P[:1]),
    "NegativeBinomial": td.NegativeBinomial(2.5, P[:1]),
    "NegativeBinomial, logits": td.NegativeBinomial(3.0, logits=P[2:]),
    "Independent": td.Independent(td.Bernoulli(P), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_sample_has_the_mean_and_variance_of_its_distribution(name):
    known = DISTRIBUTIONS[name]
    found = enumerated(known.sample)
    assert np.all(np.abs(found.mean - known.mean.numpy()) <= found.error + 1e-13)
    assert np.all(np.abs(found.variance - known.variance.numpy()) <= found.variance_error + 1e-13)
    assert np.all(found.error < 1e-9)


CALLS = {
    "Categorical": (lambda: td.Categorical(P).sample(), 1.3, 0.61, 3),
    "bernoulli": (lambda: torch.bernoulli(P)[0], 0.2, 0.16, 8),
    "bernoulli of one p": (lambda: torch.bernoulli(torch.zeros(2), 0.25)[0], 0.25, 0.1875, 4),
    "bernoulli_": (lambda: torch.empty(1, dtype=torch.float64).bernoulli_(0.25)[0], 0.25, 0.1875, 2),
    "bernoulli_ of a tensor": (lambda: torch.empty(3).bernoulli_(P)[2], 0.5, 0.25, 8),
    "multinomial": (lambda: torch.multinomial(P, 2)[0], 1.3, 0.61, 6),
    "multinomial of rows": (lambda: torch.multinomial(torch.stack([P, P]), 1)[1, 0], 1.3, 0.61, 9),
    "multinomial with replacement": (lambda: torch.multinomial(P, 2, replacement=True)[1], 1.3, 0.61, 9),
    "randint": (lambda: torch.randint(4, (1,))[0], 1.5, 1.25, 4),
    "randint from": (lambda: torch.randint(3, 7, ()), 4.5, 1.25, 4),
    "randint_like": (lambda: torch.randint_like(P, 4)[0], 1.5, 1.25, 64),
    "random_": (lambda: torch.empty(1).random_(3, 7)[0], 4.5, 1.25, 4),
    "randperm": (lambda: torch.randperm(4)[2], 1.5, 1.25, 24),
    "binomial": (lambda: torch.binomial(torch.tensor([3.0]), torch.tensor([0.5]))[0], 1.5, 0.75, 4),
    "geometric_": (lambda: torch.empty(1).geometric_(0.5)[0], 2.0, 2.0, None),
    "poisson": (lambda: torch.poisson(P[:1])[0], 0.2, 0.2, None),
    "dropout": (lambda: torch.nn.functional.dropout(torch.ones(2))[0], 1.0, 1.0, 4),
    "vmap": (lambda: torch.func.vmap(torch.bernoulli, randomness="different")(P)[0], 0.2, 0.16, 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_what_pytorch_draws_by_a_call_branches(name):
    call, mean, variance, count = CALLS[name]
    found = enumerated(call)
    assert count in (None, len(found.probability))
    assert abs(found.mean - mean) <= found.error + 1e-14
    assert abs(found.variance - variance) <= found.variance_error + 1e-14


def cost(b):
    return (b.sum(-1) - 0.7) ** 2 * (1 + b[..., 0] * b[..., 1])


def leave_one_out(theta, generator):
    """A loss whose gradient is the estimate: the costs less their baselines, times log-probabilities."""
    b = torch.bernoulli(torch.sigmoid(theta).detach().expand(2, -1), generator=generator)
    f = cost(b)
    return ((f - f.flip(0)) * td.Bernoulli(logits=theta).log_prob(b).sum(-1)).mean()


def disarm(theta):
    """An estimate itself."""
    p = torch.sigmoid(theta)
    m = torch.maximum(p, 1 - p)
    differ, side = torch.bernoulli(2 * (1 - m)), torch.bernoulli(torch.full_like(p, 0.5))
    likely = (p > 0.5).to(p)
    b, other = torch.where(differ == 1, side, likely), torch.where(differ == 1, 1 - side, likely)
    return (cost(b) - cost(other)) / 2 * (b - other) * m


def graph_of(estimator):
    def program(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")
        return (np.sum(b) - 0.7) ** 2 * (1 + b[0] * b[1])

    return scg.trace(program, THETA.numpy(), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(leave_one_out, scg.ScoreFunction(scg.LeaveOneOut(), samples=2)), (disarm, scg.DisARM())],
    ids=["leave-one-out", "DisARM"],
)
def test_estimators_have_the_exact_moments_that_scg_finds_of_its_own(theirs, ours):
    graph = graph_of(ours)
    found, known, gradient = enumerated(theirs, THETA), scg.exact.moments(graph), scg.exact.gradient(graph)
    assert np.allclose(found.mean, gradient, rtol=1e-12, atol=0)
    assert np.allclose(found.variance, known.variance, rtol=1e-12, atol=0)


def test_a_baseline_with_its_own_sample_and_a_detached_term_are_found_exactly():
    def own(theta, generator):
        b = torch.bernoulli(torch.sigmoid(theta).detach().expand(2, -1), generator=generator)
        f = cost(b)
        return ((f - f.mean()) * td.Bernoulli(logits=theta).log_prob(b).sum(-1)).mean()

    def detached(theta, generator):
        """log p of a sum that depends on theta, too: without the second term of the product rule."""
        b = torch.bernoulli(torch.sigmoid(theta).detach(), generator=generator)
        return (cost(b) * (theta**2).sum()).detach() * td.Bernoulli(logits=theta).log_prob(b).sum()

    gradient = scg.exact.gradient(graph_of(scg.DisARM()))
    assert np.allclose(enumerated(own, THETA).mean, gradient / 2, rtol=1e-12)
    expected = enumerated(
        lambda theta, generator: cost(torch.bernoulli(torch.sigmoid(theta))).detach(), THETA, None
    ).mean
    whole = gradient * np.sum(THETA.numpy() ** 2) + 2 * THETA.numpy() * expected
    assert np.allclose(whole - enumerated(detached, THETA).mean, 2 * THETA.numpy() * expected, rtol=1e-12)


def test_a_losss_gradient_has_the_structure_of_what_is_differentiated():
    def loss(params, data, generator):
        b = torch.bernoulli(torch.sigmoid(params["w"] + params["unused"] * 0).detach(), generator=generator)
        return (data * b).sum() * td.Bernoulli(logits=params["w"]).log_prob(b).sum()

    w = THETA.clone().requires_grad_()
    found = enumerated(loss, {"w": w, "unused": THETA.clone().requires_grad_()}, torch.ones(3))
    assert found.mean.keys() == {"w", "unused"} and np.all(found.mean["unused"] == 0) and w.grad is None
    p = torch.sigmoid(THETA).numpy()
    assert np.allclose(found.mean["w"], p * (1 - p), rtol=1e-12)
    # where none asks for a gradient all are parameters
    both = enumerated(lambda a, b: (a * torch.bernoulli(P)).sum() + b.sum(), THETA, THETA)
    assert np.allclose(both.mean[0], P) and np.all(both.mean[1] == 1)


def test_second_draws_see_first_ones_and_float32_keeps_float64_probabilities():
    def program(p):
        b = torch.bernoulli(p)
        return td.Categorical(logits=torch.stack([b, 2 * b, torch.zeros_like(b)])).sample().double()

    found = enumerated(program, torch.tensor(0.3))
    assert found.probability.dtype == float and abs(np.sum(found.probability) - 1) < 1e-15
    p, q = float(torch.tensor(0.3)), np.exp([1.0, 2.0, 0.0]) / np.sum(np.exp([1.0, 2.0, 0.0]))
    assert abs(found.mean - (p * (q @ [0, 1, 2]) + (1 - p))) < 1e-7  # softmax itself is of float32


class Seeded(torch.nn.Module):
    def forward(self, x):
        torch.manual_seed(0)
        return torch.bernoulli(x)


REFUSED = {
    "rand": (lambda: torch.rand(()) < 0.5, ScgTypeError, "torch.bernoulli"),
    "uniform_": (lambda: torch.empty(2).uniform_(), ScgTypeError, "p cannot be seen"),
    "randn": (lambda: torch.randn(2), ScgTypeError, "cannot be listed"),
    "gamma": (lambda: td.Gamma(1.0, 1.0).sample(), ScgTypeError, "gamma sample is continuous"),
    "gumbel": (lambda: torch.nn.functional.gumbel_softmax(P), ScgTypeError, "cannot be listed"),
    "random_ without bounds": (lambda: torch.empty(2).random_(), ScgTypeError, "give them"),
    "a seed": (lambda: Seeded()(P), ScgValueError, "seeds PyTorch's generator"),
    "a generator of its own": (lambda: torch.bernoulli(P, generator=torch.Generator()), ScgValueError, "its own|own"),
    "numpy beside it": (lambda: torch.bernoulli(P) * np.random.rand(), ScgValueError, "global generator"),
    "a closure": (lambda: (THETA.clone().requires_grad_() * torch.bernoulli(P)).sum(), ScgValueError, "hand the param"),
    "200 coins": (lambda: torch.bernoulli(torch.full((200,), 0.5)), TooManyOutcomes, r"1.61e\+60"),
    "complex": (lambda: torch.bernoulli(P) * 1j, ScgTypeError, "real numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_is_refused_at_the_users_line(name):
    program, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as refused:
        enumerated(program)
    assert "test_enumerate_torch.py:" in str(refused.value)


def test_draws_that_are_made_twice_are_refused():
    from torch.utils.checkpoint import checkpoint

    inner = lambda theta: (torch.bernoulli(torch.sigmoid(theta)) * theta).sum()
    with pytest.raises(ScgTypeError, match="checkpoint"):
        enumerated(lambda theta: checkpoint(inner, theta, use_reentrant=False), THETA)


def test_the_generator_is_handed_on_by_name_or_as_the_last_argument_and_not_seeded():
    assert enumerated(lambda p, *, generator: torch.bernoulli(p, generator=generator)[0].detach(), P).mean == 0.2
    assert enumerated(lambda p, g: torch.bernoulli(p, generator=g)[0].detach(), P).mean == 0.2
    assert enumerated(lambda p, scale=2: torch.bernoulli(p)[0].detach() * scale, P).mean == 0.4
    with pytest.raises(ScgTypeError, match="manual_seed"):
        enumerated(lambda p, g: torch.bernoulli(p, generator=g.manual_seed(0)), P)


def test_a_result_that_is_a_loss_in_some_outcomes_only_is_refused():
    def loss(theta):
        return theta.sum() if torch.bernoulli(P)[0] else torch.zeros((), dtype=torch.float64)

    with pytest.raises(ScgValueError, match="in some outcomes"):
        enumerated(loss, THETA)
    with pytest.raises(ScgValueError, match=r"\.sum\(\)"):
        enumerated(lambda theta: theta * torch.bernoulli(P[:1]), THETA[:1])


def test_gradients_that_pile_up_are_state_that_is_found_out():
    theta = THETA.clone().requires_grad_()

    def accumulated(theta):
        (theta * torch.bernoulli(P)).sum().backward()
        return theta.grad.clone()

    with pytest.raises(NotAFunctionOfItsDraws):
        enumerated(accumulated, theta)


def test_nothing_stays_behind():
    torch.manual_seed(3)
    state, expected = torch.get_rng_state(), torch.rand(3)
    torch.set_rng_state(state)
    enumerated(lambda: torch.bernoulli(P))
    with pytest.raises(ScgTypeError):
        enumerated(lambda: torch.rand(1))
    assert torch.equal(torch.rand(3), expected)
