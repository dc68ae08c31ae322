# %% [markdown]
# # Evidence
#
# A model has data $x$, hidden values $z$ and parameters $\theta$: it is the joint density $p(x, z \mid \theta)$.
# To fit it we maximise the evidence
#
# $$\ln p(x \mid \theta) = \ln \int p(x, z \mid \theta)\, dz,$$
#
# and we want the posterior $p(z \mid x, \theta)$. The integral is hard for most models. Variational inference puts an
# optimisation in its place.
#
# Every cell below has a formula, a few lines of code that are the formula, and one assertion. Where an estimate stands
# beside an exact number, its interval holds the mean in 95% of all runs.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np

import scg
from examples.lecture.tools import agrees, beside
from scg import distributions as dist

rng = np.random.default_rng(1)
REPLICATES = 20_000
SHORT = {"REPLICATES": 2000}

# %% [markdown]
# ## The bound and the divergence
#
# Take any density $q(z)$ that is positive where the posterior is. Then
#
# $$\ln p(x) = \underbrace{\mathbb{E}_{q} \left[ \ln \frac{p(x, z)}{q(z)} \right]}_{\mathrm{ELBO}(q)}
#   + \underbrace{\mathbb{E}_{q} \left[ \ln \frac{q(z)}{p(z \mid x)} \right]}_{KL(q,\; p(z \mid x))}.$$
#
# The proof is one line: $p(x, z) = p(z \mid x)\, p(x)$, so the two logarithms add up to $\ln p(x)$, which does not
# depend on $z$.
#
# > **Question.** The left side does not depend on $q$. What happens to the ELBO when the divergence falls?
#
# Their sum is fixed, so the one rises by what the other falls. The divergence is never negative: the ELBO is a lower
# bound of the evidence, and it is the evidence where $q$ is the posterior.
#
# First a discrete model: $z$ is one of three causes, $x$ is what we saw.

# %%
joint = np.array([0.5, 0.3, 0.2]) * np.array([0.1, 0.6, 0.3])  # p(z) times p(x | z) for the x that we saw
q = np.array([0.2, 0.5, 0.3])
evidence = np.sum(joint)
posterior = joint / evidence
elbo = np.sum(q * np.log(joint / q))
divergence = np.sum(q * np.log(q / posterior))
print(f"ln p(x)   {np.log(evidence):.12f}")
print(f"ELBO + KL {elbo + divergence:.12f} = {elbo:.6f} + {divergence:.6f}")
print(beside("E_q p(x, z) / q(z)", evidence, (joint / q)[rng.choice(3, size=REPLICATES, p=q)]))
assert abs(elbo + divergence - np.log(evidence)) < 1e-12

# %% [markdown]
# The same bound as a graph: a sample of $q$, and a cost. `scg.exact.expectation` sums over the three values of the
# sample, `run` draws it, here many times at once.


# %%
def bound(logits, rng):  # ln p(x, z) - ln q(z) for z ~ q
    q = dist.OneHotCategorical(logits=logits)
    z = scg.sample(q, scg.ScoreFunction(), rng=rng, name="z")
    return np.sum(z * np.log(joint)) - q.log_prob(z)


graph = scg.trace(bound, np.log(q), rng=rng)
draws = graph.run(rng=rng, replicates=REPLICATES).cost.value
print(beside("ELBO", elbo, draws))
assert abs(scg.exact.expectation(graph) - elbo) < 1e-12 and agrees(elbo, draws)

# %% [markdown]
# Now a Gaussian model, $z \sim N(0, 1)$ and $x \mid z \sim N(z, s^2)$. All four parts are known:
#
# $$p(x) = N(x;\, 0,\, 1 + s^2), \qquad p(z \mid x) = N\left(z;\, \frac{x}{1 + s^2},\, \frac{s^2}{1 + s^2}\right).$$
#
# With $q = N(m, v)$ the bound is a mean over $z = m + \sqrt{v}\,\varepsilon$ of a polynomial of degree two, which a
# Gauss-Hermite rule takes exactly.

# %%
x, s, m, v = 1.3, 0.7, 0.4, 0.5
prior = dist.Normal(0.0, 1.0)
log_evidence = dist.Normal(0.0, np.sqrt(1 + s**2)).log_prob(x)
true_posterior = dist.Normal(x / (1 + s**2), s / np.sqrt(1 + s**2))


def gaussian_bound(phi, rng):  # phi = (mean, logarithm of the standard deviation)
    q = dist.Normal(phi[0], np.exp(phi[1]))
    z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
    return prior.log_prob(z) + dist.Normal(z, s).log_prob(x) - q.log_prob(z)


graph = scg.trace(gaussian_bound, np.array([m, np.log(v) / 2]), rng=rng)
elbo, draws = scg.exact.expectation(graph), graph.run(rng=rng, replicates=REPLICATES).cost.value
gap = dist.kl_divergence(dist.Normal(m, np.sqrt(v)), true_posterior)
print(f"ln p(x)   {log_evidence:.12f}\nELBO + KL {elbo + gap:.12f}")
print(beside("ELBO", elbo, draws))
assert abs(elbo + gap - log_evidence) < 1e-12 and agrees(elbo, draws)

# %% [markdown]
# ## A family for the posterior
#
# The best $q$ is another one for each $x$. So we choose a family $q(z \mid x, \phi)$ and look for $\phi$. With the
# posterior in the family the best bound is the evidence itself; else a gap stays, and it is the divergence.
#
# Here $q(z \mid x, \phi) = N(a x + b,\, e^{2c})$ with $\phi = (a, b, c)$ serves every $x$ at once.
#
# > **Question.** Which $a$, $b$ and $c$ close the gap for all $x$?

# %%
data = np.array([-1.5, 0.2, 1.3, 2.4])


def amortised(phi, rng):  # the sum over the data of their bounds
    q = dist.Normal(phi[0] * data + phi[1], np.exp(phi[2]))
    z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
    return np.sum(prior.log_prob(z) + dist.Normal(z, s).log_prob(data) - q.log_prob(z))


best = np.array([1 / (1 + s**2), 0.0, np.log(s / np.sqrt(1 + s**2))])
total = np.sum(dist.Normal(0.0, np.sqrt(1 + s**2)).log_prob(data))
graph = scg.trace(amortised, best, rng=rng)
at_best, draws = scg.exact.expectation(graph), graph.run(rng=rng, replicates=REPLICATES).cost.value
print(f"sum of ln p(x_i) {total:.12f}, best bound {at_best:.12f}")
print(beside("best bound, sampled", total, draws))
assert abs(at_best - total) < 1e-12 and np.ptp(draws) < 1e-12

# %% [markdown]
# At the best $\phi$ every sample gives the same value, because $\ln p(x, z) - \ln q(z) = \ln p(x)$ does not depend on
# $z$ any more. Away from it the bound is a mean, and we estimate its gradient.

# %%
graph = scg.trace(amortised, np.array([0.3, 0.4, -0.2]), rng=rng)
exact = scg.exact.gradient(graph)
estimates = graph.gradients(rng=rng, replicates=REPLICATES)
print(beside("d ELBO / d phi", exact, estimates))
scg.testing.assert_unbiased(graph, rng=rng)
assert agrees(exact, estimates)

# %% [markdown]
# ## Why the bound is maximised in both
#
# $$\mathrm{ELBO}(\theta, \phi) = \ln p(x \mid \theta) - KL\left(q(z \mid x, \phi),\, p(z \mid x, \theta)\right).$$
#
# - In $\phi$ the evidence is constant, so a larger bound is a smaller divergence: $q$ comes nearer to the posterior.
# - In $\theta$ a larger bound pushes up a lower limit of the evidence. If $q$ is the posterior, the divergence is at
#   its minimum, and the gradient of the bound *is* the gradient of the evidence.
#
# > **Question.** With a $q$ that is not the posterior, is the best $\theta$ of the bound the best of the evidence?
#
# We check the second claim with $\theta = s$ at its own posterior, where $\phi$ is held.

# %%
log_s = np.log(s)


def of_theta(t, rng):  # the bound as a function of ln s, with q at the posterior for s = 0.7
    z = scg.sample(true_posterior, scg.Reparameterized(), rng=rng, name="z")
    return prior.log_prob(z) + dist.Normal(z, np.exp(t)).log_prob(x) - true_posterior.log_prob(z)


slope = scg.exact.gradient(of_theta, log_s, rng=rng)
truth = scg.grad(lambda t: dist.Normal(0.0, np.sqrt(1 + np.exp(2 * t))).log_prob(x))(log_s)
estimates = scg.trace(of_theta, log_s, rng=rng).gradients(rng=rng, replicates=REPLICATES)
print(beside("d ln p(x) / d ln s", truth, estimates))
assert abs(slope - truth) < 1e-10 and agrees(truth, estimates)

# %% [markdown]
# And the answer to the question: the bound with a $q$ that is too wide has its best $s$ elsewhere. The gap depends on
# $\theta$, too, and the bound prefers models whose posterior looks like $q$. The figure shows both.

# %%
grid = np.linspace(0.3, 2.5, 200)
evidences = dist.Normal(0.0, np.sqrt(1 + grid**2)).log_prob(x)
wide = dist.Normal(m, np.sqrt(v))  # this q is held while s moves
expected = dist.Normal(m, grid).log_prob(x) - v / (2 * grid**2)  # E ln p(x | z)
bounds = expected - dist.kl_divergence(wide, prior)
fig, ax = plt.subplots()
ax.plot(grid, evidences, label="ln p(x | s)")
ax.plot(grid, bounds, label="ELBO(s), q = N(0.4, 0.5)")
best_bound, best_evidence = grid[np.argmax(bounds)], grid[np.argmax(evidences)]
ax.plot([best_evidence, best_bound], [evidences.max(), bounds.max()], "ko", label="the best s of each")
ax.set(xlabel="s", ylabel="nats", ylim=(-2.5, -1.6), title="The best s of the bound is not that of the evidence")
ax.legend()
print(f"best s of the bound {best_bound:.2f}, of the evidence {best_evidence:.2f}")
assert np.all(bounds < evidences) and best_bound > best_evidence

# %% [markdown]
# ## Diagnose it
#
# Somebody trains the discrete model. The sample decides which terms the bound has, but the code below treats it as a
# constant, as a framework without stochastic nodes does. It runs without a warning.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. Then say which term is
# > missing, and what the mean of the rest is.


# %% tags=["exercise"]
def wrong_gradient(n, rng):  # n gradients of -ln q(z) alone
    picks = np.eye(3)[rng.choice(3, size=n, p=q)]
    return q - picks


broken = scg.bridge.Samples(wrong_gradient, evaluations=1)
truth = scg.exact.gradient(bound, np.log(q), rng=rng)
print("exact gradient", truth)

# %% [markdown] tags=["answer"]
# The verdict is *biased*. The derivative through the density of the sample is missing,
# $\mathbb{E}\left[ (\ln p(x, z) - \ln q(z))\, \partial \ln q(z) / \partial \phi \right]$. What is left is
# $-\mathbb{E}[\partial \ln q(z) / \partial \phi]$, which is zero for every $q$ (chapter 3 proves it). So the estimator
# is pure noise around zero: it says at every $\phi$ that we have arrived.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
print(verdict.status)
assert verdict.status == "biased"
