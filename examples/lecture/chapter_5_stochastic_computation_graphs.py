# %% [markdown]
# # Stochastic computation graphs
#
# A program is a graph: inputs, functions of them, functions of these, and one number at the end. Backpropagation is
# the chain rule along its edges. This chapter makes some of the nodes random, asks what the chain rule becomes, and
# finds *one* rule for all such graphs: a loss, the surrogate, whose ordinary derivative is the estimate (Schulman,
# Heess, Weber and Abbeel, 2015).

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np

import scg
from examples.lecture.tools import agrees, beside
from scg import distributions as dist

rng = np.random.default_rng(5)
REPLICATES = 20_000
SHORT = {"REPLICATES": 4000}


def sigma(t):
    return 1 / (1 + np.exp(-t))


def coin_cost(z):
    return (z - 0.4) ** 2


def mean_cost(t):
    return sigma(t) * coin_cost(1.0) + (1 - sigma(t)) * coin_cost(0.0)


def mean_second(loss, t):
    return sigma(t) * scg.hessian(loss)(t, 1.0) + (1 - sigma(t)) * scg.hessian(loss)(t, 0.0)


# %% [markdown]
# ## A chain of functions
#
# $t = h(g(f(x)))$ with $y = f(x)$ and $u = g(y)$. The chain rule multiplies the slopes on the way, and reverse mode
# multiplies them from the end:
#
# $$\frac{dt}{dx} = \frac{\partial t}{\partial u}\, \frac{\partial u}{\partial y}\, \frac{\partial y}{\partial x}
#   = h'(u)\, g'(y)\, f'(x).$$
#
# Here $f(x) = x^2$, $g(y) = y - 2$ and $h(u) = u^2$.


# %%
def chain(x):
    y = x**2
    u = y - 2
    return u**2


x = np.array(0.7)
print(scg.trace(chain, x))
print("reverse mode", scg.grad(chain)(x), "  by hand", 2 * (x**2 - 2) * 1 * 2 * x)
assert np.isclose(scg.grad(chain)(x), 2 * (x**2 - 2) * 2 * x)

# %% [markdown]
# ## One node is random
#
# Now $y \sim N(f(x), s^2)$, and the rest stays. The number $t$ is random, so we ask for the derivative of its mean.
# From $\mathbb{E}(y - 2)^2 = (f(x) - 2)^2 + s^2$,
#
# $$\frac{d}{dx}\, \mathbb{E}\, t = 2 (f(x) - 2)\, f'(x).$$
#
# The edge from $x$ to $y$ is broken: $y$ was drawn, and no slope leads through a die. Each of the two tricks mends it.
# With $y = f(x) + s \varepsilon$ the chain is whole again; the *chain estimator* is the product of slopes, at the
# sample:
#
# $$h'(u)\, g'(y)\, f'(x) = 2 (y - 2)\, f'(x).$$
#
# The log-derivative trick jumps from the end of the chain to the density:
#
# $$t\, \frac{\partial}{\partial x} \ln p(y \mid x) = t\, \frac{y - f(x)}{s^2}\, f'(x).$$
#
# In scg the graph is written once, and the trick is *bound* to the node.

# %%
s = 0.8


def broken_chain(x, rng):
    y = scg.sample(dist.Normal(x**2, s), scg.ScoreFunction(), rng=rng, name="y")
    return (y - 2) ** 2


graph = scg.trace(broken_chain, x, rng=rng)
exact = 2 * (x**2 - 2) * 2 * x
for name, estimator in {"score function": scg.ScoreFunction(), "chain": scg.Reparameterized()}.items():
    estimates = graph.bind(y=estimator).gradients(rng=rng, replicates=REPLICATES)
    print(beside(name, exact, estimates))
    assert agrees(exact, estimates)

# %% [markdown]
# > **Question.** Both means are right. In the picture the circle is the sample. Along which edges does each of the two
# > estimators send the gradient?

# %%
assert list(graph.stochastic) == ["y"]
graph

# %% [markdown]
# The chain estimator sends it through the circle, edge by edge. The score function sends the *value* of the cost, as a
# number, from the end of the graph to the parameters of the circle: it needs no slope behind the circle, so there may
# be steps. What that freedom costs here, chapters 3 and 4 have computed: with $c = f(x) - 2$ the variances are
# $4 s^2 f'(x)^2$ and $(c^4 / s^2 + 14 c^2 + 15 s^2) f'(x)^2$.

# %%
c, slope_of_f = x**2 - 2, 2 * x
by_hand = {
    "score function": slope_of_f**2 * (c**4 / s**2 + 14 * c**2 + 15 * s**2),
    "chain": (2 * s * slope_of_f) ** 2,
}
for name, estimator in {"score function": scg.ScoreFunction(), "chain": scg.Reparameterized()}.items():
    bound = graph.bind(y=estimator)
    estimates = bound.gradients(rng=rng, replicates=REPLICATES)
    print(beside("variance, " + name.split()[0], by_hand[name], (estimates - exact) ** 2))
    assert np.isclose(scg.exact.moments(bound).variance, by_hand[name])

# %% [markdown]
# ## The surrogate loss
#
# A program that has only ordinary backpropagation can do all this, if we change the loss. Let
#
# $$L(x) = \sum_{c} c \;+\; \sum_{w} \ln p(w \mid \mathrm{pa}_w)\; \bot\Big( \sum_{c \succ w} c \Big),$$
#
# where $w$ runs over the random nodes with a score function, $c$ over the costs, $c \succ w$ says that $w$ influences
# $c$, and $\bot(\cdot)$ is a number that is not differentiated. Its derivative is the estimate: the first sum has the
# slopes along paths that are whole, the second the scores.
#
# Two repairs make it useful. With $\ln p - \bot(\ln p)$ the second sum is zero, so the loss keeps the *value* of the
# cost. And scg takes the whole sum from the graph: `scg.surrogate(cost)`.


# %%
def surrogate_by_hand(x, y):
    log_p = dist.Normal(x**2, s).log_prob(y)
    cost = (y - 2) ** 2
    return cost + (log_p - scg.stop_gradient(log_p)) * scg.stop_gradient(cost)


y = graph.stochastic["y"].value
loss = scg.surrogate(graph.cost)
print("values   ", loss.value, graph.cost.value)
print("gradients", scg.grad(surrogate_by_hand)(x, y), graph.gradients())
assert loss.value == graph.cost.value and np.isclose(scg.grad(surrogate_by_hand)(x, y), graph.gradients())

# %% [markdown]
# The parameter may also stand in the cost itself, as in the third row of the table in chapter 2. The first sum of $L$
# has that part. With $c(y, x) = (y - x)^2$ and $y \sim N(x^2, s^2)$: $\mathbb{E} c = (x^2 - x)^2 + s^2$.


# %%
def both_terms(x, rng):
    y = scg.sample(dist.Normal(x**2, s), scg.ScoreFunction(), rng=rng, name="y")
    return (y - x) ** 2


exact_both = 2 * (x**2 - x) * (2 * x - 1)
estimates = scg.trace(both_terms, x, rng=rng).gradients(rng=rng, replicates=REPLICATES)
print(beside("both terms", exact_both, estimates))
assert agrees(exact_both, estimates)

# %% [markdown]
# ## What a cost must be downstream of
#
# The sum over $c \succ w$ leaves out the costs that $w$ does not influence. That is allowed, because
#
# $$\mathbb{E}\left[ c\; \partial \ln p(w \mid \mathrm{pa}_w) \right]
#   = \mathbb{E}\left[ c\; \mathbb{E}\left[ \partial \ln p(w \mid \mathrm{pa}_w) \mid \mathrm{pa}_w, c \right] \right]
#   = 0$$
#
# whenever $c$ is known before $w$ is drawn. And it pays: such a cost is noise, and nothing else. Take a walk of coins,
# $z_i \sim \mathrm{Bernoulli}(\sigma(\theta + z_{i-1}))$, with a cost $(z_i - 0.4)^2$ at every step. Coin $i$ meets the
# *cost-to-go*, the costs from step $i$ on.
#
# > **Question.** With ten steps, how many times the variance of the cost-to-go does the total cost have? Does the
# > factor grow with the length of the walk?


# %%
def walk(theta, rng, steps=10, estimator=scg.ScoreFunction):
    z, total = 0.0, 0.0
    for i in range(steps):
        z = scg.sample(dist.Bernoulli(logits=theta + z), estimator(), rng=rng, name=f"z{i}")
        total = total + coin_cost(z)
    return total


theta = np.array(-0.3)
slope = scg.exact.gradient(walk, theta, rng=rng)
to_go = scg.trace(walk, theta, rng=rng).gradients(rng=rng, replicates=REPLICATES)
print(beside("cost-to-go", slope, to_go))
assert agrees(slope, to_go)

# %% [markdown]
# To give every coin the *total* cost we write the estimator by hand. The score of coin $i$ in $\theta$ is $z_i - p_i$.


# %%
def total_cost(theta, n, steps=10):
    z, scores, total = np.zeros(n), np.zeros(n), np.zeros(n)
    for _ in range(steps):
        p = sigma(theta + z)
        z = (rng.random(n) < p) * 1.0
        scores, total = scores + z - p, total + coin_cost(z)
    return scores * total


everything = total_cost(theta, REPLICATES)
print(beside("total cost", slope, everything))
assert agrees(slope, everything)

# %% [markdown]
# Both have the same mean. Now the variances: of the cost-to-go exactly, by elimination along the walk (chapter 9), and
# of the total cost by its replicates.

# %%
lengths = [2, 5, 10, 20, 40]
exact_walk = [scg.exact.moments(scg.trace(walk, theta, rng=rng, steps=n)).variance for n in lengths]
sampled = [total_cost(theta, REPLICATES, n).var() for n in lengths]
fig, ax = plt.subplots()
ax.loglog(lengths, sampled, "s-", label="total cost, sampled")
ax.loglog(lengths, exact_walk, "o-", label="cost-to-go, exact")
ax.set(xlabel="steps of the walk", ylabel="variance", title="Variance of the gradient of a walk of coins")
ax.set_xticks(lengths, lengths)
ax.minorticks_off()
ax.legend()
print(beside("variance, cost-to-go", exact_walk[2], (to_go - slope) ** 2))
print("total over cost-to-go", [f"{a / b:.1f}" for a, b in zip(sampled, exact_walk, strict=True)])
assert agrees(exact_walk[2], (to_go - slope) ** 2) and sampled[-1] > 2 * exact_walk[-1]

# %% [markdown]
# The scores are $n$ numbers of one size, and so the variance of their sum grows with $n$; each is multiplied by a sum
# of costs, whose square grows with $n^2$. Both variances grow as $n^3$. The cost-to-go has a third of the squares,
# $\sum_i (n - i)^2 \approx n^3 / 3$: the factor tends to three, and it comes for nothing.

# %% [markdown]
# ## Second derivatives
#
# The surrogate has the right first derivative. Is the derivative of its derivative an estimate of the second?
#
# > **Question.** $L = \bot(c)\, \ln p(z)$ for a coin $z$ with logit $\theta$ and a cost $c(z)$. Differentiate twice.
# > What should have come, and what is missing?
#
# It should be $\mathbb{E}\left[ c\, (\partial^2 \ln p + (\partial \ln p)^2) \right]$, because $\partial p = p\,
# \partial \ln p$ twice. The derivative of $L$ is $\bot(c)\, \partial \ln p$, in which the probability of the sample is
# gone; another derivative gives $\bot(c)\, \partial^2 \ln p$ alone. The *magic box* keeps it (Foerster et al., 2018):
#
# $$\square(s) = \exp(s - \bot(s)), \qquad \partial\, \square(s) = \square(s)\, \partial s, \qquad
#   L = c\; \square(\ln p).$$
#
# It is 1, and however often one differentiates, a factor $\square$ stays that can be differentiated again. For a coin
# all of it can be enumerated.


# %%
def of_the_surrogate(t, z):
    return scg.stop_gradient(coin_cost(z)) * dist.Bernoulli(logits=t).log_prob(z)


def of_the_box(t, z):
    log_p = dist.Bernoulli(logits=t).log_prob(z)
    return coin_cost(z) * np.exp(log_p - scg.stop_gradient(log_p))


exact_second = scg.hessian(mean_cost)(theta)
print(f"exact {exact_second:.6f}")
found = mean_second(of_the_surrogate, theta), mean_second(of_the_box, theta)
print(f"of the surrogate {found[0]:.6f}, of the box {found[1]:.6f}")
assert np.isclose(found[1], exact_second) and found[0] < 0 < exact_second

# %% [markdown]
# `scg.hessian` of a program with samples does this by itself: its mean is the second derivative of the mean.


# %%
def coin(t, rng):
    return coin_cost(scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="z"))


curvature = scg.hessian(coin)
estimates = np.array([curvature(theta, rng=rng) for _ in range(REPLICATES // 10)])
print(beside("second derivative", exact_second, estimates))
assert agrees(exact_second, estimates)

# %% [markdown]
# ## Diagnose it
#
# In the walk every coin has a cost at its own step. Somebody reasons that a coin is responsible for its own cost, and
# gives its score that one only. The variance falls a lot, and the loss goes down.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. Which of the terms $c \succ w$
# > are missing? For which walk would the estimator be right?


# %% tags=["exercise"]
def own_cost(n, rng, link=1.0):  # n gradients of the walk of ten coins
    z, gradient = np.zeros(n), np.zeros(n)
    for _ in range(10):
        p = sigma(theta + link * z)
        z = (rng.random(n) < p) * 1.0
        gradient += (z - p) * coin_cost(z)
    return gradient


broken, truth = scg.bridge.Samples(own_cost, evaluations=1), slope
print("exact gradient", truth)

# %% [markdown] tags=["answer"]
# Coin $i$ decides the probability of coin $i + 1$, and through it all costs that follow. These are left out: the coin
# learns to please at once and not to prepare. The estimator is right where no coin depends on another one, for the
# "walk" $z_i \sim \mathrm{Bernoulli}(\sigma(\theta))$. Its low variance is no merit: part of what it leaves out is the
# answer.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
free = own_cost(REPLICATES, rng, link=0.0)
print(verdict.status)
print(beside("without the link", 10 * scg.grad(mean_cost)(theta), free))
assert verdict.status == "biased" and agrees(10 * scg.grad(mean_cost)(theta), free)
