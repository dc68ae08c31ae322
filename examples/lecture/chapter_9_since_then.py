# %% [markdown]
# # Since then
#
# The lecture ends with two tricks: one that needs a density and is noisy, one that needs a slope. What has come since
# for samples that have no slope? Four answers, one page each: two coins in place of one, draws that are coupled,
# sums that are taken exactly, and the losses by which language models are trained.

# %% tags=["setup"]
import itertools

import matplotlib.pyplot as plt
import numpy as np

import scg
from examples.lecture.tools import agrees, beside
from scg import distributions as dist

rng = np.random.default_rng(9)
REPLICATES = 20_000
SHORT = {"REPLICATES": 4000}


def sigma(t):
    return 1 / (1 + np.exp(-t))


def f(b):
    return (b - 0.4) ** 2


# %% [markdown]
# ## Two coins in place of one: DisARM
#
# A coin $b \sim \mathrm{Bernoulli}(p)$, $p = \sigma(l)$, is $b = 1[u < p]$ with $u$ uniform. Toss a second coin with
# the *opposite* number, $\tilde b = 1[1 - u < p]$. Where the two differ, their costs say in which direction to go. ARM
# (Yin and Zhou, 2019) weighs the difference by $u - 1/2$, and this $u$ is noise that the coins do not need. DisARM
# (Dong, Mnih and Tucker, 2020) takes its mean given the two coins:
#
# $$g = \tfrac12\, \big(f(b) - f(\tilde b)\big)\, (-1)^{\tilde b}\; 1[b \ne \tilde b]\; \sigma(|l|).$$
#
# For one coin with $d = f(1) - f(0)$ and $q = 1 - p$: the two differ with probability $2 \min(p, q)$, and then $g =
# d \max(p, q) / 2$. So
#
# $$\mathbb{E}\, g = d\, p q, \qquad \mathrm{Var}\, g = d^2 p q\, \big( \tfrac12 \max(p, q) - p q \big).$$
#
# > **Question.** Leave-one-out with two independent samples, $\tfrac12 (f(b_1) - f(b_2)) (b_1 - b_2)$, differs from
# > zero with probability $2 p q$, and is $d / 2$ then. Which of the two is better at $p = 1/2$, and which at
# > $p = 0.99$?


# %%
def disarm(l, n):
    u = rng.random(n)
    b, other = (u < sigma(l)) * 1.0, (1 - u < sigma(l)) * 1.0
    return 0.5 * (f(b) - f(other)) * (-1) ** other * (b != other) * sigma(abs(l))


l = 1.2
d, p, q = f(1) - f(0), sigma(l), 1 - sigma(l)
exact, variance = d * p * q, d**2 * p * q * (max(p, q) / 2 - p * q)
estimates = disarm(l, REPLICATES)
print(beside("gradient", exact, estimates))
print(beside("variance", variance, (estimates - exact) ** 2))
assert agrees(exact, estimates) and agrees(variance, (estimates - exact) ** 2)


# %% [markdown]
# The variance of leave-one-out is $d^2 p q (\tfrac12 - p q)$: DisARM has $\max(p, q)$ in the place of 1, and is better
# at every $p$. At $p = 1/2$ it has no variance at all; towards $p = 1$ nothing is gained. scg knows the three by name,
# and their exact variances.


# %%
def coin(l, rng, estimator):
    return f(scg.sample(dist.Bernoulli(logits=l), estimator, rng=rng, name="b"))


pair = scg.ScoreFunction(scg.LeaveOneOut(), samples=2)
for name, estimator in {"leave-one-out": pair, "ARM": scg.ARM(), "DisARM": scg.DisARM()}.items():
    graph = scg.trace(coin, l, rng=rng, estimator=estimator)
    found = scg.exact.moments(graph)
    print(beside(name, found.variance, (graph.gradients(rng=rng, replicates=REPLICATES) - found.mean) ** 2))
assert np.isclose(found.mean, exact) and np.isclose(found.variance, variance)

# %% [markdown]
# ## Draws that are coupled
#
# DisARM looks at the cost elsewhere: at another value of the coin. So do `Enumerate`, which looks at both values, and
# most estimators of this chapter. But what if other coins follow? Take the walk of chapter 5, $z_i \sim
# \mathrm{Bernoulli}(\sigma(\theta + z_{i-1}))$. To know the cost at another $z_1$, the coins $z_2, z_3, \dots$ must be
# tossed again. Tossed anew they differ from the first ones by chance alone, and this noise is as large as the walk is
# long.
#
# *Coupled* coins use the same randomness. Coin $i$ is $1[u_i < p_i]$; given the coin that was seen, $u_i$ is uniform on
# the side where it fell, and the coin at another $p_i'$ is $1[u_i < p_i']$. It has the right distribution, and it is
# the same coin with probability $1 - |p_i - p_i'|$: soon the two walks meet, and cost the same from there on.
#
# > **Question.** Is the mean of the difference changed? Only the two distributions enter it, not how they are joined.
# > And its variance, by which factor in a walk of ten coins?


# %%
def walk(theta, rng, steps=10, estimator=scg.Enumerate):
    z, total = 0.0, 0.0
    for i in range(steps):
        z = scg.sample(dist.Bernoulli(logits=theta + z), estimator(), rng=rng, name=f"z{i}")
        total = total + (z - 0.4) ** 2
    return total


theta, graph, found = np.array(-0.3), scg.trace(walk, np.array(-0.3), rng=rng), {}
for coupled in (False, True):
    graph = graph.bind({"z*": scg.Enumerate(coupled=coupled)})
    found[coupled], estimates = scg.exact.moments(graph), graph.gradients(rng=rng, replicates=REPLICATES)
    print(beside(f"coupled={coupled}", found[coupled].variance, (estimates - found[coupled].mean) ** 2))
assert np.isclose(found[True].mean, found[False].mean) and found[True].variance < found[False].variance / 8

# %% [markdown]
# ## Sums that are taken exactly
#
# The mean over $n$ coins is a sum of $2^n$ terms. But in the walk each coin looks at one before it only, and each cost
# at one coin. So sum over $z_1$ first, for both values of $z_2$; then over $z_2$, for both of $z_3$: $n$ small sums.
# That is *elimination*, and the forward algorithm is one of its names:
#
# $$\mu_{i+1}(z') = \sum_{z} p(z' \mid z)\, \mu_i(z), \qquad
#   \mathbb{E} \sum_i c(z_i) = \sum_i \sum_z c(z)\, \mu_i(z).$$


# %%
def forward(theta, steps):
    mu, total = np.array([1.0, 0.0]), 0.0
    p = sigma(theta + np.array([0.0, 1.0]))  # of a one after a zero, and after a one
    for _ in range(steps):
        one = np.sum(p * mu)
        mu = np.stack([1 - one, one])
        total = total + one * 0.36 + (1 - one) * 0.16
    return total


truth = scg.grad(forward)(theta, 200)
print(f"200 coins by hand {truth:.12f}")
print(f"from the graph    {scg.exact.gradient(walk, theta, rng=rng, steps=200):.12f}")
assert np.isclose(scg.exact.gradient(walk, theta, rng=rng, steps=200), truth)

# %% [markdown]
# scg reads from the axes and terms of a program what depends on what, and finds the order by itself. As an *estimator*
# it is `Marginalize()`: bound to the coins it sums them out, in a training loop too. Its variance is zero. The second
# number is what the same gradient costs in noise with the score function.

# %%
graph = scg.trace(walk, theta, rng=rng, steps=200, estimator=scg.ScoreFunction)
sampled = graph.gradients(rng=rng, replicates=REPLICATES // 10)
summed = graph.bind({"z*": scg.Marginalize()}).gradients(rng=rng)
print(f"Marginalize    {summed:.12f}")
print(beside("score function", truth, sampled))
assert np.isclose(summed, truth) and agrees(truth, sampled)

# %% [markdown]
# ## Policy losses
#
# A language model answers a question; an answer $a$ has a reward $r(a)$. The gradient of $\mathbb{E}_{\pi}\, r(a)$ is
# that of chapter 3, and the losses that people train by are estimators of it, some with a bias that one should know.
# Three answers are enough to see it, because everything can be enumerated. A group of $K$ answers is drawn for each
# question, and $A_k$ is what multiplies the score of answer $k$:
#
# | loss | $A_k$ |
# | --- | --- |
# | REINFORCE | $r_k$ |
# | RLOO | $r_k$ minus the mean of the others |
# | GRPO | $(r_k - \bar r) / \mathrm{std}(r)$ |
#
# > **Question.** The last one divides by the standard deviation of the group. For a question that is nearly always
# > answered right, does that make its gradient larger or smaller? What does it do to the question whose answers are
# > right half the time?


# %% tags=["setup"]
def policy_gradient(logits, rewards, advantages):  # the exact mean over all groups of four
    pi, mean = np.exp(logits) / np.sum(np.exp(logits)), np.zeros_like(logits)
    for group in itertools.product(range(len(pi)), repeat=4):
        scores = np.eye(len(pi))[list(group)] - pi
        mean += np.prod(pi[list(group)]) * advantages(rewards[list(group)]) @ scores / 4
    return mean


def grpo(r):
    return (r - r.mean()) / (r.std() + 1e-12)


# %%
rewards, logits = np.array([1.0, 0.0, 0.0]), np.array([0.2, 0.1, -0.3])
pi = np.exp(logits) / np.sum(np.exp(logits))
truth = pi * (rewards - pi @ rewards)  # d/dl E r
loo = policy_gradient(logits, rewards, lambda r: (r - r.mean()) * 4 / 3)  # r less the mean of the others
normalised = policy_gradient(logits, rewards, grpo)
print("exact", truth, "\nRLOO ", loo, "\nGRPO ", normalised)
assert np.allclose(loo, truth) and np.allclose(normalised / truth, normalised[0] / truth[0])

# %% [markdown]
# The mean of GRPO has the right direction here, and another length. With rewards 0 and 1 it is the gradient of another
# objective, in which every question counts by how often it is answered right. The figure shows the factor between the
# two against the probability $s$ of a right answer. In a large group the standard deviation is $\sqrt{s (1 - s)}$, and
# the factor one over it: questions that are nearly solved, and those that are nearly hopeless, are raised without
# limit. In a group of four the limit is that all answers may be alike, and then there is no gradient at all.

# %%
chance = np.linspace(0.02, 0.98, 49)
answers = [np.log([s, 1 - s]) for s in chance]
of_four = [policy_gradient(l, np.array([1.0, 0.0]), grpo)[0] for l in answers] / (chance * (1 - chance))
fig, ax = plt.subplots()
ax.plot(chance, 1 / np.sqrt(chance * (1 - chance)), label="large groups")
ax.plot(chance, of_four, label="groups of four")
ax.set(xlabel="probability of a right answer", ylabel="GRPO / exact gradient", ylim=0)
ax.set_title("How GRPO weighs a question")
ax.legend()
print(f"groups of four: {of_four[24]:.3f} at 1/2, {of_four[-1]:.3f} at 0.98")
assert of_four[24] == min(of_four) and np.isclose(of_four[0], of_four[-1])

# %% [markdown]
# ## Diagnose it
#
# A penalty shall keep the policy near a reference, $\mathrm{KL}(\pi \,\|\, \rho)$. With $w = \rho(a) / \pi(a)$ the
# number $k_3 = w - 1 - \ln w$ is an unbiased estimate of it with little variance, and never negative. So many programs
# add the mean of $k_3$ at the sampled answers to their loss, and differentiate.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. The *value* is right. Of what is
# > the gradient?


# %% tags=["exercise"]
rho = np.array([0.5, 0.3, 0.2])


def kl(l):
    return np.sum(scg.special.softmax(l) * (scg.special.log_softmax(l) - np.log(rho)))


def k3_gradients(n, rng):  # d k3 / d logits at sampled answers
    a = rng.choice(3, size=n, p=pi)
    w = (rho / pi)[a]
    return (1 - w)[:, None] * (np.eye(3)[a] - pi)


broken, truth = scg.bridge.Samples(k3_gradients, evaluations=1), scg.grad(kl)(logits)
print("exact gradient", truth)

# %% [markdown] tags=["answer"]
# The answers were drawn from $\pi$, and their distribution is not differentiated. What is left is
# $\mathbb{E}_\pi[(1 - w)\, \partial \ln \pi] = -\sum_a \rho(a)\, \partial \ln \pi(a)$: the gradient of
# $\mathrm{KL}(\rho \,\|\, \pi)$, the *other* divergence. It pulls towards the reference as well, which is why nobody
# notices. With $k_2 = \tfrac12 (\ln w)^2$, whose value is biased, the gradient is the right one.
# `python -m examples.policy_losses` has eighteen such losses, with their derivations.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
other = pi - rho  # the gradient of KL(rho || pi)
estimates = k3_gradients(REPLICATES, rng)
print(verdict.status)
print(beside("of KL(rho || pi)", other, estimates))
assert verdict.status == "biased" and agrees(other, estimates)
