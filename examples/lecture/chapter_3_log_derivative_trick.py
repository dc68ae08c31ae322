# %% [markdown]
# # The log-derivative trick
#
# A mean depends on $\phi$ through the density of what is drawn. Its derivative is no mean yet, so it cannot be sampled:
#
# $$\frac{\partial}{\partial \phi} \int q(z \mid \phi)\, f(z)\, dz
#   = \int f(z)\, \frac{\partial q(z \mid \phi)}{\partial \phi}\, dz.$$
#
# One identity makes a mean of it, for every $q$ that we can differentiate and every $f$ that we can compute. The price
# is variance. This chapter says how much, and what can be done.

# %% tags=["setup"]
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import quad
from scipy.special import digamma

import scg
from examples.lecture.tools import agrees, beside
from scg import distributions as dist

rng = np.random.default_rng(3)
REPLICATES, STEPS = 20_000, 1500
SHORT = {"REPLICATES": 4000, "STEPS": 500}

# %% [markdown]
# ## The identity
#
# For a positive function, $\partial \ln f = \partial f / f$. So
#
# $$\partial f = f\, \partial \ln f.$$
#
# Take the density of the gamma distribution with the parameter $a$ and rate 1, for which
# $\partial \ln p(z \mid a) / \partial a = \ln z - \psi(a)$, where $\psi$ is the derivative of $\ln \Gamma$.

# %%
a, z = 2.3, 1.7


def log_density(a):
    return dist.Gamma(a, 1.0).log_prob(z)


left = scg.grad(lambda a: np.exp(log_density(a)))(a)
right = np.exp(log_density(a)) * scg.grad(log_density)(a)
by_hand = np.exp(log_density(a)) * (np.log(z) - digamma(a))
print(f"dp {left:.12f}\np d ln p {right:.12f}")
assert abs(left - right) < 1e-12 and abs(right - by_hand) < 1e-12

# %% [markdown]
# With $f = q$ the derivative of the mean is a mean again:
#
# $$\frac{\partial}{\partial \phi}\, \mathbb{E}_{q(z \mid \phi)} f(z)
#   = \mathbb{E}_{q(z \mid \phi)} \left[ f(z)\, \frac{\partial}{\partial \phi} \ln q(z \mid \phi) \right].$$
#
# Nothing is asked of $f$: below it has a kink, and $z$ is an integer. The exact number is the sum over the seven values
# of a binomial $z$ with probability $q = 1 / (1 + e^{-\phi})$, and the multiplier is $z - 6 q$.

# %%
phi = np.array(0.4)


def cost(phi, rng):
    z = scg.sample(dist.Binomial(6, logits=phi), scg.ScoreFunction(), rng=rng, name="z")
    return np.abs(z - 3)


z = rng.binomial(6, 1 / (1 + np.exp(-phi)), size=REPLICATES)
by_hand = np.abs(z - 3) * (z - 6 / (1 + np.exp(-phi)))
graph = scg.trace(cost, phi, rng=rng)
print(beside("by hand", scg.exact.gradient(graph), by_hand))
print(beside("scg", scg.exact.gradient(graph), graph.gradients(rng=rng, replicates=REPLICATES)))
scg.testing.assert_unbiased(graph, rng=rng)
assert agrees(scg.exact.gradient(graph), by_hand)

# %% [markdown]
# ## The multiplier has mean zero
#
# $$\mathbb{E}_q \left[ \partial \ln q \right]
#   = \int q\, \frac{\partial q}{q}\, dz = \partial \int q\, dz = \partial 1 = 0.$$
#
# > **Question.** The proof moves a derivative through an integral. For which densities is that wrong?
#
# For those whose support moves with the parameter, such as the uniform on $(0, \theta)$; chapter 4 comes back to them.
# First a sum over all values of a discrete $z$, with $q = \mathrm{softmax}(\phi)$ and $\partial \ln q(k) = e_k - q$.

# %%
logits = np.array([0.3, -1.0, 0.8, 0.1])
q = np.exp(logits) / np.sum(np.exp(logits))
scores = np.eye(4) - q  # a row for each value k
enumerated = q @ scores
drawn = scores[rng.choice(4, size=REPLICATES, p=q)]
print(beside("E d ln q", 0.0, drawn))
assert np.all(np.abs(enumerated) < 1e-15) and agrees(0.0, drawn)

# %% [markdown]
# Then an integral, for the two parameters of a gamma density $q(z \mid a, b)$:
# $\partial \ln q / \partial a = \ln z - \psi(a) + \ln b$, and $\partial \ln q / \partial b = a / b - z$.

# %%
a, b = 2.3, 1.5


def score(z):
    return np.array([np.log(z) - digamma(a) + np.log(b), a / b - z])


density = dist.Gamma(a, b)
integrals = [quad(lambda z: np.exp(density.log_prob(z)) * score(z)[k], 0, np.inf)[0] for k in (0, 1)]
drawn = score(rng.gamma(a, 1 / b, size=REPLICATES)).T
print("by quadrature", *(f"{value:.1e}" for value in integrals))
print(beside("E d ln q", 0.0, drawn))
assert np.all(np.abs(integrals) < 1e-8) and agrees(0.0, drawn)

# %% [markdown]
# ## The size of the multiplier
#
# The mean is zero, the size is not. For $q = N(m, s^2)$ the multiplier of $m$ is $(z - m) / s^2$. Its mean square is
# the Fisher information,
#
# $$\mathbb{E} \left[ (\partial_m \ln q)^2 \right] = \frac{1}{s^2},$$
#
# and in $d$ dimensions it is $d / s^2$. When $q$ becomes narrow in training, the multiplier becomes large.

# %%
widths = np.array([1.0, 0.3, 0.1])
scores = rng.normal(size=(REPLICATES, 3)) / widths  # (z - m) / s^2 with z = m + s e
print(beside("E (d ln q/dm)^2", 1 / widths**2, scores**2))
assert agrees(1 / widths**2, scores**2)

# %% [markdown]
# And it is multiplied by $f$. In the vector $f(z)\, \partial \ln q(z)$ the second factor says how to make this $z$ more
# probable. If $f$ is the logarithm of a density of an image, it is $-100$ for a good $z$ and $-130$ for a bad one. Each
# sample then says: less of this $z$. Only the differences carry information, and they are found by subtracting large
# numbers from large numbers.
#
# > **Question.** We add a constant $c$ to the cost. What happens to the gradient, and what to the variance?
#
# With $f(z) = c + z^2$, $A = c + m^2$ and $u = z - m$ the moments of $u$ give
#
# $$\mathrm{Var} \left[ f\, \partial_m \ln q \right]
#   = \frac{1}{s^4}\, \mathbb{E} \left[ (A + 2 m u + u^2)^2 u^2 \right] - 4 m^2
#   = \frac{A^2}{s^2} + 6 A + 8 m^2 + 15 s^2.$$
#
# (The absolute value in the code changes no number. Without it scg sees that $c$ does not depend on $z$, and does not
# multiply it by anything; chapter 5 comes to that.)

# %%
m, s = 0.5, 0.8


def shifted(m, rng, c=0.0, estimator=scg.ScoreFunction()):
    z = scg.sample(dist.Normal(m, s), estimator, rng=rng, name="z")
    return np.abs(c + z**2)


def variance(A):
    return A**2 / s**2 + 6 * A + 8 * m**2 + 15 * s**2


found = {c: scg.exact.moments(shifted, m, rng=rng, c=c) for c in (0.0, 10.0, 100.0)}
for c, exact in found.items():
    estimates = scg.trace(shifted, m, rng=rng, c=c).gradients(rng=rng, replicates=REPLICATES)
    print(beside(f"mean for c = {c:g}", exact.mean, estimates))
    print(beside(f"variance for c = {c:g}", exact.variance, (estimates - 2 * m) ** 2))
assert all(np.isclose(exact.variance, variance(c + m**2)) for c, exact in found.items())

# %% [markdown]
# The gradient does not move, the variance grows like $c^2$: with $c = 100$ it takes 16,000 samples for a standard error
# as large as the gradient.
#
# ## Baselines
#
# We may take away what we like, as long as it does not depend on $z$:
#
# $$\mathbb{E}_q \left[ (f(z) - B)\, \partial \ln q(z) \right] = \mathbb{E}_q \left[ f(z)\, \partial \ln q(z) \right],
#   \qquad B = B(x, \phi),$$
#
# because $\mathbb{E}_q [B\, \partial \ln q] = B \cdot 0$. The variance is a parabola in $B$, and its lowest point is
#
# $$B^* = \frac{\mathbb{E} \left[ f\, (\partial \ln q)^2 \right]}{\mathbb{E} \left[ (\partial \ln q)^2 \right]}.$$
#
# > **Question.** A popular choice is $B = \mathbb{E} f$, the mean cost. Is it the best constant?
#
# No: the costs where the multiplier is large count more. In our example $\mathbb{E} f = A + s^2$ and $B^* = A + 3 s^2$.

# %%
constants = {"none": 0.0, "10": 10.0, "mean cost": 10 + m**2 + s**2, "best": 10 + m**2 + 3 * s**2}
exact = {}
for name, B in constants.items():
    graph = scg.trace(shifted, m, rng=rng, c=10.0, estimator=scg.ScoreFunction(baseline=scg.Constant(B)))
    scg.testing.assert_unbiased(graph, rng=rng)
    estimates = graph.gradients(rng=rng, replicates=REPLICATES)
    exact[name] = scg.exact.moments(graph).variance
    print(beside(f"{name}, B = {B:.2f}", exact[name], (estimates - 2 * m) ** 2))
assert all(np.isclose(exact[name], variance(10 + m**2 - B)) for name, B in constants.items())

# %% [markdown]
# The best constant leaves $8 m^2 + 6 s^2$, the mean cost $8 m^2 + 10 s^2$. Neither depends on $A$ any more.

# %%
B = np.linspace(6, 16, 200)
fig, ax = plt.subplots()
ax.plot(B, variance(10 + m**2 - B))
for name, at in list(constants.items())[1:]:
    ax.plot(at, exact[name], "o", label=f"{name}, B = {at:.2f}")
ax.set(xlabel="B", ylabel="variance", title="The variance is a parabola in the baseline")
ax.legend()
lowest = B[np.argmin(variance(10 + m**2 - B))]
print(f"lowest at {lowest:.2f}, formula {constants['best']:.2f}")
assert abs(lowest - constants["best"]) < 0.05

# %% [markdown]
# ## Leave one out
#
# We rarely know $\mathbb{E} f$. With $K$ samples the others tell it, and they are independent of the one:
#
# $$G = \frac{1}{K} \sum_{k=1}^K \left( f(z_k) - \frac{1}{K - 1} \sum_{j \neq k} f(z_j) \right) \partial \ln q(z_k).$$
#
# > **Question.** Two samples without a baseline have half the variance of one. How much better are two samples that are
# > each other's baseline?

# %%
u = s * rng.normal(size=(REPLICATES, 2))
f = 10 + (m + u) ** 2
by_hand = np.mean((f - f[:, ::-1]) * u / s**2, axis=1)  # with K = 2 the other one is the baseline
two = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
graph = scg.trace(shifted, m, rng=rng, c=10.0, estimator=two)
scg.testing.assert_unbiased(graph, rng=rng)
left = scg.exact.moments(graph).variance
print(f"two samples, no baseline {variance(10 + m**2) / 2:.4f}")
print(beside("leave one out", left, (by_hand - 2 * m) ** 2))
assert agrees(2 * m, by_hand) and agrees(left, (by_hand - 2 * m) ** 2)

# %% [markdown]
# Leave-one-out is as good as the best constant here, and it has to know nothing. It takes two evaluations of the cost.
# The constant $c$ has disappeared: only differences of costs are left. Here is the variance against the constant, for
# no baseline, for the constant that was best for $c = 0$ and is held, and for two samples with leave-one-out.

# %%
cs = np.geomspace(0.1, 1000, 7)
pairs = [scg.trace(shifted, m, rng=rng, c=c, estimator=two).gradients(rng=rng, replicates=REPLICATES) for c in cs]
lines = {
    "none": variance(cs + m**2),
    "constant, best for c = 0": variance(cs - 3 * s**2),  # A - B, with B = m^2 + 3 s^2
    "leave one out, K = 2, measured": [np.var(pair) for pair in pairs],
}
fig, ax = plt.subplots()
for name, line in lines.items():
    ax.loglog(cs, line, "o-", ms=3, label=name)
ax.set(xlabel="c, in the cost c + z²", ylabel="variance", title="Variance against the scale of the cost")
ax.legend()
print(beside("K = 2, c = 1000", left, (pairs[-1] - 2 * m) ** 2))
assert all(agrees(left, (pair - 2 * m) ** 2) for pair in pairs) and lines["none"][-1] > 1e5 * lines["none"][0]

# %% [markdown]
# ## A learned baseline
#
# $B$ may depend on $x$. In the bound of chapter 1 each data point has its own typical value of
# $f = \ln p(x, z) - \ln q(z)$, and no constant fits all of them. So we learn a function $B(x, w)$, here
# $w_0 + w_1 x + w_2 x^2$, by the squared error $(f - B(x, w))^2$, from the same samples (Mnih and Gregor, 2014).
#
# > **Question.** $B$ is learned from samples. Is the gradient still unbiased?
#
# Yes: the baseline of a step was learned in earlier steps, and does not depend on the sample that it stands beside.

# %% tags=["setup"]
data, prior, phi = np.array([-4.0, -1.5, 2.4, 3.5]), dist.Normal(0.0, 1.0), np.array([0.5, 0.3, -0.4])


def bound(phi, rng, x=data, **options):  # q(z | x, phi) = N(phi_0 x + phi_1, exp(phi_2)^2)
    q = dist.Normal(phi[0] * x + phi[1], np.exp(phi[2]))
    z = scg.sample(q, scg.ScoreFunction(**options), rng=rng, name="z")
    return np.sum(prior.log_prob(z) + dist.Normal(z, 0.7).log_prob(x) - q.log_prob(z))


# %% [markdown]
# `scg.Learned` takes a step each time that it has seen the costs. What it should find is known here: the mean of $f$ is
# a polynomial of degree two in $x$.


# %%
def B(w, x):
    return w[0] + w[1] * (x / 4) + w[2] * (x / 4) ** 2


w = np.zeros(3)
learned = scg.Learned(B, w, optimizer=partial(scg.optim.SGD, learning_rate=0.02))
for _ in range(STEPS):
    scg.value_and_grad(bound)(phi, rng=rng, baseline=learned(data))
mean, v = phi[0] * data + phi[1], np.exp(2 * phi[2])
typical = 0.5 - (mean**2 + v) / 2 - ((data - mean) ** 2 + v) / (2 * 0.7**2)  # of the terms of f with z
print("E f(x)", typical.round(2), "\nB(x)  ", B(w, data).round(2))
assert np.all(np.abs(B(w, data) - typical) < 1.5)

# %% [markdown]
# Now four estimators of one gradient. The variance is the sum over the three parameters; the data have samples of their
# own, so the exact variances of the data points add up.
#
# > **Question.** Which row would you take, and would you still take it if $f$ cost an hour?

# %%
fixed = scg.Learned(B, w)  # without an optimizer it is held as it is now
rows = {
    "none": lambda x: {},
    "constant": lambda x: {"baseline": scg.Constant(np.mean(typical))},
    "learned B(x)": lambda x: {"baseline": fixed(x)},
    "leave one out, K = 2": lambda x: {"baseline": scg.LeaveOneOut(), "samples": 2},
}
truth, exact = scg.exact.gradient(bound, phi, rng=rng), {}
for name, options in rows.items():
    parts = [scg.exact.moments(bound, phi, rng=rng, x=x, **options(x)) for x in np.split(data, 4)]
    exact[name] = np.sum([part.variance for part in parts])
    estimates = scg.trace(bound, phi, rng=rng, **options(data)).gradients(rng=rng, replicates=REPLICATES)
    print(beside(name, exact[name], np.sum((estimates - truth) ** 2, axis=1)))
assert exact["learned B(x)"] < exact["constant"] < exact["none"]

# %% [markdown]
# The learned baseline costs next to nothing and comes close to leave-one-out, which evaluates $f$ twice. Both are far
# from zero: a baseline takes away what does not depend on $z$, and most of what is left does. Chapter 4 has another way
# where $f$ has a derivative.
#
# ## Diagnose it
#
# Four samples, and the mean of *all* their costs as the baseline. It looks like leave-one-out, and it is simpler.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. By which factor is the mean of
# > the estimator wrong, and why does a test with a loose tolerance not see it when there are a hundred samples?


# %% tags=["exercise"]
def all_four(n, rng):  # n gradients of E z^2 in m
    u = s * rng.normal(size=(n, 4))
    f = (m + u) ** 2
    return np.mean((f - f.mean(axis=1, keepdims=True)) * u / s**2, axis=1)


broken, truth = scg.bridge.Samples(all_four, evaluations=4), np.array(2 * m)
print("exact gradient", truth)

# %% [markdown] tags=["answer"]
# The baseline of sample $k$ contains $f(z_k)$ itself, with weight $1/K$, and
# $\mathbb{E} \left[ \frac{1}{K} f(z_k)\, \partial \ln q(z_k) \right]$ is not zero: it is the gradient over $K$. So the
# mean is $(1 - 1/K)$ of the gradient, three quarters of it here. With a hundred samples one percent is missing, which
# no loss curve shows. (The factor can be divided out: the result is leave-one-out, exactly.)

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
estimates = all_four(REPLICATES, rng)
print(verdict.status)
print(beside("its mean", 0.75 * truth, estimates))
assert verdict.status == "biased" and agrees(0.75 * truth, estimates)
