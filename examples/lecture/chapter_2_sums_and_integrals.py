# %% [markdown]
# # Sums and integrals
#
# To minimise $f(x)$ we do not need its gradient. A random vector $G$ with $\mathbb{E}\, G = \nabla f(x)$ is enough:
#
# $$x_{k+1} = x_k - \alpha_k G_k, \qquad \sum_k \alpha_k = \infty, \quad \sum_k \alpha_k^2 < \infty$$
#
# (Robbins and Monro, 1951). Such a $G$ is called a stochastic gradient. Two things make $f$ expensive: a sum over many
# terms, and an integral. Each of them is a mean, and so each can be sampled.
#
# | $f(x)$ | a stochastic gradient | what is drawn |
# | --- | --- | --- |
# | $\sum_{i=1}^n f_i(x)$ | $n\, \nabla f_i(x)$ | $i$ uniform on $1 \ldots n$ |
# | $\int p(y)\, h(x, y)\, dy$ | $\nabla_x h(x, y)$ | $y \sim p(y)$ |
# | $\sum_{i=1}^n \int p(y)\, h_i(x, y)\, dy$ | $n\, \nabla_x h_i(x, y)$ | $i$ and $y$ |
# | $\int p(y \mid x)\, h(x, y)\, dy$ | $\nabla_x h(x, y) + h(x, y)\, \nabla_x \ln p(y \mid x)$ | $y \sim p(y \mid x)$ |
#
# The chapter runs the rows in this order.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np

import scg
from examples.lecture.tools import agrees, beside
from scg import distributions as dist

rng = np.random.default_rng(2)
REPLICATES, RUNS = 20_000, 400
SHORT = {"REPLICATES": 2000, "RUNS": 100}

# %% [markdown]
# ## A sum
#
# The index $i$ has probability $1/n$, so
#
# $$\mathbb{E}_i \left[ n\, \nabla f_i(x) \right] = \sum_{i=1}^n \frac{1}{n}\, n\, \nabla f_i(x) = \nabla f(x).$$
#
# The factor $n$ is part of the estimator. Here $f_i(x) = (x - a_i)^2$. `scg.minibatch` draws the index, and
# `batch.factor` is $n$ over the size of the batch.

# %%
data, x = np.array([-1.0, 0.5, 2.0, 0.0, 1.5, 3.0]), np.array(0.7)


def one_term(x, rng):
    batch = scg.minibatch(len(data), 1, rng=rng, name="i")
    return batch.factor * np.sum((x - batch.rows(data)) ** 2)


graph, exact = scg.trace(one_term, x, rng=rng), np.sum(2 * (x - data))
estimates = graph.gradients(rng=rng, replicates=REPLICATES)
print(beside("df/dx", exact, estimates))
scg.testing.assert_unbiased(graph, rng=rng)
assert abs(scg.exact.gradient(graph) - exact) < 1e-12 and agrees(exact, estimates)

# %% [markdown]
# > **Question.** A batch of $b$ different terms costs $b$ times as much. Is its variance $b$ times smaller?
#
# It is smaller than that. With $S^2$ the variance of the $n$ numbers $\nabla f_i$ (with $n - 1$ in its denominator),
#
# $$\mathrm{Var} = \frac{n^2}{b}\, S^2 \left( 1 - \frac{b}{n} \right),$$
#
# because the terms of a batch are all different; and at $b = n$ nothing is left to chance. The exact variance below is
# a sum over all batches.


# %%
def batch_of(b):
    def cost(x, rng):
        batch = scg.minibatch(len(data), b, rng=rng, name="i")
        return batch.factor * np.sum((x - batch.rows(data)) ** 2)

    return scg.trace(cost, x, rng=rng)


n, spread = len(data), np.var(2 * (x - data), ddof=1)
exact_variances = [scg.exact.moments(batch_of(b)).variance for b in range(1, n + 1)]
print("b   " + " ".join(f"{b:6}" for b in range(1, n + 1)))
print("Var " + " ".join(f"{variance:6.1f}" for variance in exact_variances))
estimates = batch_of(2).gradients(rng=rng, replicates=REPLICATES)
print(beside("Var, b = 2", exact_variances[1], (estimates - exact) ** 2))
assert np.allclose(exact_variances, [n**2 / b * spread * (1 - b / n) for b in range(1, n + 1)], atol=1e-10)

# %% [markdown]
# What the variance does to the optimisation: many runs from $x_0 = 4$ with $\alpha_k = 1 / (2 n k)$. With these steps
# $x_k$ is the mean of the first $k$ numbers that were drawn, so the error of $x_k$ has the standard deviation
# $\sigma / \sqrt{k}$, where $\sigma$ is that of the data. The minimum is the mean of the data.

# %%
steps, at = np.arange(1, 301), np.full(RUNS, 4.0)
path = []
for k in steps:
    term = rng.integers(n, size=RUNS)  # of each run
    at = at - n * 2 * (at - data[term]) / (2 * n * k)
    path.append(at)
fig, ax = plt.subplots()
ax.plot(steps, np.array(path)[:, :12], color="tab:blue", alpha=0.35, lw=0.8)
for side in (-1.96, 1.96):
    ax.plot(steps, data.mean() + side * data.std() / np.sqrt(steps), color="k", ls="--", lw=1)
ax.set(xlabel="step k", ylabel="x", xscale="log", title="Twelve runs of stochastic gradient descent; dashed: 95%")
print(beside("the minimum", data.mean(), at))
print(beside("the error squared", data.var() / len(steps), (at - data.mean()) ** 2))
assert agrees(data.mean(), at) and agrees(data.var() / len(steps), (at - data.mean()) ** 2)

# %% [markdown]
# ## An integral
#
# $f(x) = \int p(y)\, h(x, y)\, dy$, and the density does not depend on $x$. So the gradient goes under the integral:
#
# $$\nabla f(x) = \int p(y)\, \nabla_x h(x, y)\, dy = \mathbb{E}_{p(y)} \nabla_x h(x, y).$$
#
# Here $h(x, y) = \ln(1 + e^{x y})$ with $y \sim N(0.5, 1)$, and the exact number comes from quadrature.


# %%
def softplus_mean(x, rng):
    y = scg.sample(dist.Normal(0.5, 1.0), scg.ScoreFunction(), rng=rng, name="y")
    return np.log1p(np.exp(x * y))


graph = scg.trace(softplus_mean, x, rng=rng)
exact, estimates = scg.exact.gradient(graph), graph.gradients(rng=rng, replicates=REPLICATES)
print(beside("df/dx", exact, estimates))
scg.testing.assert_unbiased(graph, rng=rng)
nodes, weights = np.polynomial.hermite_e.hermegauss(100)
y = 0.5 + nodes
by_hand = np.sum(weights * y / (1 + np.exp(-x * y))) / np.sqrt(2 * np.pi)
assert abs(exact - by_hand) < 1e-9 and agrees(exact, estimates)

# %% [markdown]
# ## Both
#
# A sum of integrals is sampled twice: a term, and a value of $y$ for it. The estimate is called doubly stochastic.
# An example is linear regression with weights $x$, where noise $y \sim N(0, \sigma^2 I)$ is added to the inputs $a_i$:
#
# $$f(x) = \sum_{i=1}^n \int p(y) \left( t_i - x^T (a_i + y) \right)^2 dy
#   = \sum_{i=1}^n \left( t_i - x^T a_i \right)^2 + n\, \sigma^2\, x^T x.$$
#
# So noise on the inputs is ridge regression, and we have an exact gradient:
# $\nabla f = -2 \sum_i a_i (t_i - x^T a_i) + 2 n \sigma^2 x$.

# %%
inputs, sigma = rng.normal(size=(6, 2)), 0.5
targets = inputs @ np.array([1.0, -2.0]) + 0.3 * rng.normal(size=6)
weights = np.array([0.4, -0.3])


def noisy(x, rng, size=1):
    batch = scg.minibatch(6, size, rng=rng, name="i")
    y = scg.sample(dist.Normal(0.0, sigma), scg.ScoreFunction(), rng=rng, shape=(size, 2), name="y")
    return batch.factor * np.sum((batch.rows(targets) - (batch.rows(inputs) + y) @ x) ** 2)


graph = scg.trace(noisy, weights, rng=rng)
estimates = graph.gradients(rng=rng, replicates=REPLICATES)
exact = -2 * inputs.T @ (targets - inputs @ weights) + 2 * 6 * sigma**2 * weights
print(beside("df/dx", exact, estimates))
scg.testing.assert_unbiased(graph, rng=rng)
assert np.allclose(scg.exact.gradient(graph), exact) and agrees(exact, estimates)

# %% [markdown]
# > **Question.** Which of the two adds more variance here, the term or the noise? Do the two variances add up?
#
# They do, if we are careful. By the law of total variance
#
# $$\mathrm{Var}\, G = \mathrm{Var}_i\, \mathbb{E}_y[G] + \mathbb{E}_i\, \mathrm{Var}_y[G].$$
#
# The first part is the variance of a batch of the terms that are integrated. With all six terms it is zero, and the
# second part is left, six times smaller: six values of $y$ are drawn and not one with the factor six.


# %%
def integrated(x, rng):
    batch = scg.minibatch(6, 1, rng=rng, name="i")
    return 6 * np.sum((batch.rows(targets) - batch.rows(inputs) @ x) ** 2 + sigma**2 * (x @ x))


def all_terms(x, rng):
    y = scg.sample(dist.Normal(0.0, sigma), scg.ScoreFunction(), rng=rng, shape=(6, 2), name="y")
    return np.sum((targets - np.sum((inputs + y) * x, axis=1)) ** 2)


costs = (noisy, integrated, all_terms)
both, term, noise = (scg.exact.moments(cost, weights, rng=rng).variance for cost in costs)
print(f"term alone {term}, noise alone in all terms {noise}")
print(beside("measured, both", both, (estimates - exact) ** 2))
assert np.allclose(both, term + 6 * noise) and agrees(both, (estimates - exact) ** 2)

# %% [markdown]
# ## The parameter in the density
#
# Now $x$ is in the density, too. The derivative of a product has two terms, and neither may be left out:
#
# $$\nabla \int p(y \mid x)\, h(x, y)\, dy
#   = \int p(y \mid x)\, \nabla_x h(x, y)\, dy + \int h(x, y)\, \nabla_x p(y \mid x)\, dy.$$
#
# The second one is no mean yet. It is one after $\nabla p = p\, \nabla \ln p$, which is the subject of chapter 3:
#
# $$\nabla f(x) = \mathbb{E}_{p(y \mid x)} \left[ \nabla_x h(x, y) + h(x, y)\, \nabla_x \ln p(y \mid x) \right].$$
#
# With $y \sim N(x, 1)$ and $h(x, y) = x y^2$ we know $f(x) = x (x^2 + 1)$. The first term is $x^2 + 1$, the second
# $2 x^2$.

# %%
y = rng.normal(x, 1.0, size=REPLICATES)
through_h, through_p = y**2, x * y**2 * (y - x)  # d ln p / dx = y - x
print(beside("E dh/dx", x**2 + 1, through_h))
print(beside("E h d ln p/dx", 2 * x**2, through_p))
print(beside("df/dx", 3 * x**2 + 1, through_h + through_p))
assert agrees(x**2 + 1, through_h) and agrees(2 * x**2, through_p)

# %% [markdown]
# In scg the second term is what the estimator of a stochastic node is for. It is never left out: the gradient of a
# stochastic graph is that of the expected cost.


# %%
def moving(x, rng):
    y = scg.sample(dist.Normal(x, 1.0), scg.ScoreFunction(), rng=rng, name="y")
    return x * y**2


graph = scg.trace(moving, x, rng=rng)
estimates = graph.gradients(rng=rng, replicates=REPLICATES)
print(beside("df/dx", 3 * x**2 + 1, estimates))
scg.testing.assert_unbiased(graph, rng=rng)
assert abs(scg.exact.gradient(graph) - (3 * x**2 + 1)) < 1e-9 and agrees(3 * x**2 + 1, estimates)

# %% [markdown]
# ## The bound, with a batch and a sample at once
#
# All rows of the table meet in variational inference. The bound of chapter 1 for $n$ data points is a sum over the
# data, of integrals, and the parameter $\phi$ is both in the density and under the logarithm:
#
# $$\mathrm{ELBO}(\phi) = \sum_{i=1}^n \int q(z_i \mid x_i, \phi)\,
#   \ln \frac{p(x_i, z_i)}{q(z_i \mid x_i, \phi)}\, dz_i.$$
#
# A batch of two of the six points, and one $z_i$ for each of them, is an unbiased gradient. This is why variational
# inference works on large data.

# %%
prior, phi = dist.Normal(0.0, 1.0), np.array([0.3, 0.4, -0.2])  # q(z | x, phi) = N(phi_0 x + phi_1, exp(phi_2)^2)


def bound(phi, rng, size=2):
    batch = scg.minibatch(len(data), size, rng=rng, name="i")
    x = batch.rows(data)
    q = dist.Normal(phi[0] * x + phi[1], np.exp(phi[2]))
    z = scg.sample(q, scg.ScoreFunction(), rng=rng, name="z")
    return batch.factor * np.sum(prior.log_prob(z) + dist.Normal(z, 0.7).log_prob(x) - q.log_prob(z))


whole = scg.exact.gradient(scg.trace(lambda phi, rng: bound(phi, rng, size=6), phi, rng=rng))
graph = scg.trace(bound, phi, rng=rng)
estimates = graph.gradients(rng=rng, replicates=REPLICATES)
print(beside("d ELBO / d phi", whole, estimates))
scg.testing.assert_unbiased(graph, rng=rng)
assert np.allclose(scg.exact.gradient(graph), whole) and agrees(whole, estimates)

# %% [markdown]
# ## Diagnose it
#
# One hidden value $z$ serves all data: $z \sim N(0, 1)$ and $x_i \mid z \sim N(z, 1)$, with
# $q = N(\phi_0, e^{2 \phi_1})$. Somebody trains $q$ on batches of two of the six points. The code runs, the loss falls,
# and the fit looks right.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. Which posterior does the code
# > approximate? Is its $q$ too narrow or too wide?


# %% tags=["exercise"]
def global_bound(phi, rng):
    batch = scg.minibatch(len(data), 2, rng=rng, name="i")
    q = dist.Normal(phi[0], np.exp(phi[1]))
    z = scg.sample(q, scg.ScoreFunction(), rng=rng, name="z")
    return np.sum(dist.Normal(z, 1.0).log_prob(batch.rows(data))) + prior.log_prob(z) - q.log_prob(z)


# ELBO(m, s) = -sum_i ((x_i - m)^2 + s^2)/2 - (m^2 + s^2)/2 + ln s + constant
m, s = 0.2, 0.5
truth = np.array([np.sum(data - m) - m, 1 - (len(data) + 1) * s**2])
broken = scg.trace(global_bound, np.array([m, np.log(s)]), rng=rng)
print("exact gradient", truth)

# %% [markdown] tags=["answer"]
# The factor $n / b = 3$ before the sum over the batch is missing; `batch.factor` has it. The prior and $q$ are counted
# once for each batch, the data only a third: the mean of the estimator is the gradient of
# $\frac{b}{n} \sum_i \mathbb{E}_q \ln p(x_i \mid z) - KL(q, p(z))$, a bound for two points and not for six. So the code
# approximates the posterior of a third of the data. Its variance is $1 / (2 + 1)$, that of all data $1 / (6 + 1)$: the
# learned $q$ is too wide, and its mean is drawn to the prior. No loss curve shows this.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
tempered = np.array([np.sum(data - m) / 3 - m, 1 - (2 + 1) * s**2])
print(verdict.status, scg.exact.gradient(broken), tempered)
assert verdict.status == "biased" and np.allclose(scg.exact.gradient(broken), tempered)
