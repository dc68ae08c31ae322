# %% [markdown]
# # IWAE
#
# One sample gives the ELBO, a lower bound of $\ln p(x)$. Burda, Grosse and Salakhutdinov (2016) take $k$ samples of
# $q(z \mid x)$ and the logarithm of the mean of their weights:
#
# $$L_k = \mathbb{E} \left[ \ln \frac1k \sum_{i=1}^k w_i \right], \qquad w_i = \frac{p(x, z_i)}{q(z_i \mid x)}.$$
#
# $L_1$ is the ELBO. This chapter proves, with numbers for each step, that the bound grows with $k$ and tends to
# $\ln p(x)$. Then it asks what that does to the gradient, and whether it helps on the digits.

# %% tags=["setup"]
from functools import partial
from itertools import combinations, product

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multinomial, t

import scg
from examples import evaluation, iwae, training
from examples.lecture import learning
from examples.lecture.tools import agrees, beside, error
from scg import distributions as dist
from scg import objectives

rng = np.random.default_rng(8)
REPLICATES, EPOCHS, SEEDS, KS = 20_000, 20, (0, 1, 2), np.array([1, 4, 16, 64, 256])
SHORT = {"REPLICATES": 4000, "EPOCHS": 2, "SEEDS": (0, 1), "KS": np.array([1, 4, 16])}

# %% [markdown]
# ## Subsets
#
# Take any $k$ numbers. Draw $m$ of them at random, without replacement, and take their mean. The mean of *that*, over
# all subsets $I$, is the mean of all:
#
# $$\mathbb{E}_I \left[ \frac1m \sum_{i \in I} w_i \right] = \frac1k \sum_{i=1}^k w_i.$$
#
# Each $i$ is in $\binom{k-1}{m-1}$ of the $\binom{k}{m}$ subsets, which is the part $m / k$ of them. Below are six
# numbers, and all their subsets of every size.

# %%
w = np.array([0.08, 1.2, 0.24, 0.5, 0.02, 2.3])
for m in range(1, 7):
    means = np.array([np.mean(w[list(I)]) for I in combinations(range(6), m)])
    drawn = rng.permuted(np.tile(w, (REPLICATES, 1)), axis=1)[:, :m].mean(axis=1)
    print(beside(f"m = {m}, subsets: {len(means)}", np.mean(means), drawn))
    assert abs(np.mean(means) - np.mean(w)) < 1e-15 and agrees(np.mean(w), drawn)

# %% [markdown]
# > **Question.** Take the logarithm of each subset's mean, and then the mean over the subsets. Is it more or less than
# > the logarithm of the mean of all?
#
# The logarithm is concave, so by Jensen's inequality
#
# $$\ln \frac1k \sum_i w_i = \ln \mathbb{E}_I \left[ \frac1m \sum_{i \in I} w_i \right]
#   \geq \mathbb{E}_I \left[ \ln \frac1m \sum_{i \in I} w_i \right].$$

# %%
logs = [np.mean([np.log(np.mean(w[list(I)])) for I in combinations(range(6), m)]) for m in range(1, 7)]
drawn = np.log(rng.permuted(np.tile(w, (REPLICATES, 1)), axis=1)[:, :3].mean(axis=1))
print("m = 1 ... 6:", *(f"{value:.4f}" for value in logs))
print(beside("m = 3", logs[2], drawn))
assert np.all(np.diff(logs) > 0) and np.isclose(logs[5], np.log(np.mean(w))) and agrees(logs[2], drawn)

# %% [markdown]
# ## The bound grows
#
# Now the $w_i$ are weights of independent samples, and we take the mean over them on both sides. A subset of $m$
# independent samples is $m$ independent samples, so on the right stands $L_m$, whichever subset it is:
#
# $$L_k \geq L_m \qquad \text{for } k \geq m.$$
#
# The gap is the mean of what Jensen's inequality loses. A model with three causes can be summed out: all $3^4$ values
# of four samples, and for each the six pairs.

# %%
joint = np.array([0.05, 0.18, 0.06])  # p(x, z) for the x that we saw
q = np.array([0.6, 0.15, 0.25])
weights, log_evidence = joint / q, np.log(joint.sum())


def bound(k):  # L_k, a sum over all counts of the three values among k samples
    counts = np.array([(a, b, k - a - b) for a in range(k + 1) for b in range(k + 1 - a)])
    return multinomial.pmf(counts, k, q) @ np.log(counts @ weights / k)


def lost(w):  # ln of the mean of four minus the mean of the logarithms for pairs
    return np.log(np.mean(w)) - np.mean([np.log((w[i] + w[j]) / 2) for i, j in combinations(range(4), 2)])


gap = sum(np.prod(q[list(z)]) * lost(weights[list(z)]) for z in product(range(3), repeat=4))
print(f"L_2 = {bound(2):.12f}, L_4 = {bound(4):.12f}\nL_4 - L_2 {bound(4) - bound(2):.12f}\nenumerated {gap:.12f}")
assert abs(bound(4) - bound(2) - gap) < 1e-12

# %%
for k in (1, 2, 4, 16, 64):
    w = weights[rng.choice(3, size=(REPLICATES, k), p=q)]
    print(beside(f"L_{k}", bound(k), np.log(np.mean(w, axis=1))))
print(f"ln p(x) = {log_evidence:.6f}")


def four(logits, rng, k=4):
    z = scg.sample(dist.OneHotCategorical(logits=logits), scg.ScoreFunction(), rng=rng, shape=(k,), name="z")
    return objectives.iwae(z @ np.log(weights))


exact = scg.exact.expectation(four, np.log(q), rng=rng)
assert abs(exact - bound(4)) < 1e-12 and agrees(bound(64), np.log(w.mean(axis=1)))

# %% [markdown]
# ## To the evidence
#
# $\frac1k \sum w_i$ has the mean $p(x)$ for every $k$, and its variance falls like $1/k$. A second-order expansion of
# the logarithm gives the rate at which the bound comes to the evidence:
#
# $$\ln p(x) - L_k \approx \frac{1}{2 k}\, \frac{\mathrm{Var}\, w}{p(x)^2}.$$
#
# > **Question.** From a gap of 0.1 nats, how many times more samples does a gap of 0.01 take? When does the formula
# > fail?
#
# Ten times more. It needs a finite variance of the weights. Where $q$ is much narrower than the posterior there is
# none, and the bound still grows, but slower.

# %%
ks = np.unique(np.geomspace(1, 150, 30).astype(int))
curve = np.array([bound(k) for k in ks])
rate = (q @ weights**2 / joint.sum() ** 2 - 1) / 2
last = np.log(weights[rng.choice(3, size=(REPLICATES, ks[-1]), p=q)].mean(axis=1))
print(f"k times the gap, k = {ks[-1]}: {ks[-1] * (log_evidence - curve[-1]):.4f}, formula {rate:.4f}")
print(beside("the gap", log_evidence - curve[-1], log_evidence - last))
assert abs(ks[-1] * (log_evidence - curve[-1]) / rate - 1) < 0.05 and agrees(curve[-1], last)

# %%
fig, (left, right) = plt.subplots(1, 2)
left.semilogx(ks, curve, "o-", ms=3, label="L_k, exact")
left.axhline(log_evidence, color="0.3", label="ln p(x)")
left.set(xlabel="k", ylabel="nats", title="The bound grows with k")
right.loglog(ks, log_evidence - curve, "o-", ms=3, label="ln p(x) − L_k")
right.loglog(ks, rate / ks, "--", color="0.3", label="Var w / (2 k p(x)²)")
right.set(xlabel="k", title="The gap falls like 1/k")
left.legend(loc="lower right")
right.legend()
assert np.all(np.diff(curve) > 0) and curve[-1] < log_evidence

# %% [markdown]
# ## The gradient of the encoder
#
# A better bound is not for nothing. Write $W_i = w_i / \sum_j w_j$. With reparameterized samples
#
# $$\nabla L_k = \mathbb{E} \left[ \sum_i W_i\, \nabla \ln w_i \right].$$
#
# For the model's $\theta$ more samples are a better estimate of the gradient of $\ln p(x)$. For the encoder's $\phi$
# they are not: in the limit the bound is $\ln p(x)$, which does not depend on $\phi$. The gradient vanishes like $1/k$
# and its standard deviation only like $1 / \sqrt{k}$. So the signal-to-noise ratio
# $|\mathbb{E}\, G| / \sqrt{\mathrm{Var}\, G}$ *falls*, like $1 / \sqrt{k}$ (Rainforth et al., 2018).
#
# Our example is $z \sim N(\theta, 1)$, $x \mid z \sim N(z, 1)$ and $q = N(b, 2/3)$. There
# $d \ln w / d b = \theta + x - 2 z$ along $z = b + \sqrt{2/3}\, \varepsilon$.
#
# > **Question.** For which $q$ should a good estimator of the encoder's gradient have no noise at all? Has this one?
#
# Tucker et al. (2019) split the derivative of $\ln w_i$ into the one through $z_i$ and the one through the parameter in
# $\ln q$, a score, and write the score's part as a derivative through $z_i$ again. What is left is
#
# $$\nabla_\phi L_k = \mathbb{E} \left[ \sum_i W_i^2\, \frac{\partial \ln w_i}{\partial z_i}\,
#   \frac{\partial z_i}{\partial \phi} \right],$$
#
# the doubly reparameterized gradient (DReG). Where $q$ is the posterior the encoder has nothing to learn. There
# $\ln w$ does not depend on $z$, so every term of DReG is zero. The terms of the first formula are not: with equal
# $W_i$ they are $\theta + x - 2 z_i$, as noisy as ever.

# %%
x, theta, b, s = 1.5, 0.5, 1.3, np.sqrt(2 / 3)  # the posterior is N(1, 1/2)


def bound_of(params, rng, k, gradient):  # params = (theta, b)
    def model(z):
        return dist.Normal(params[0], 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)

    return objectives.iwae(model, guide=dist.Normal(params[1], s), samples=k, rng=rng, gradient=gradient)


for gradient in ("pathwise", "doubly reparameterized"):
    graph = scg.trace(bound_of, np.array([theta, b]), rng=rng, k=2, gradient=gradient)
    exact, estimates = scg.exact.moments(graph), graph.gradients(rng=rng, replicates=REPLICATES)
    scg.testing.assert_unbiased(graph, rng=rng)
    print(gradient)
    print(beside("  mean", exact.mean, estimates))
    print(beside("  variance", exact.variance, (estimates - exact.mean) ** 2))
assert agrees(exact.mean, estimates) and agrees(exact.variance, (estimates - exact.mean) ** 2)

# %% [markdown]
# Element 0 is $\theta$, element 1 is $b$: both gradients have one mean, and for $b$ the second has far less variance.
# By hand they are a few lines.


# %%
def by_hand(k, n):  # n gradients of L_k: by theta, by b, and by b doubly reparameterized
    z = b + s * rng.normal(size=(n, k))
    log_w = -((z - theta) ** 2 + (x - z) ** 2) / 2 + (z - b) ** 2 / (2 * s**2)
    W = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    W /= W.sum(axis=1, keepdims=True)
    moved = theta + x - 2 * z  # d ln p(x, z) / dz
    through_z = moved + (z - b) / s**2  # d ln w / dz
    return np.stack([np.sum(part, axis=1) for part in (W * (z - theta), W * moved, W**2 * through_z)], axis=1)


hand = by_hand(2, REPLICATES)
print(beside("by hand", exact.mean[[0, 1, 1]], hand))
assert agrees(exact.mean[[0, 1, 1]], hand)

# %% [markdown]
# Now the ratio against $k$.

# %%
found = np.array([by_hand(k, REPLICATES) for k in KS])
signal, noise = [0, 2, 2], found.std(axis=1)  # both gradients by b have one mean: the better estimate of it
ratio = np.abs(found.mean(axis=1))[:, signal] / noise
half = 1.96 * np.sqrt(((noise[:, signal] / noise) ** 2 + ratio**2 / 2) / REPLICATES)
fig, ax = plt.subplots()
for j, name in enumerate(("θ", "b, pathwise", "b, doubly reparameterized")):
    ax.errorbar(KS, ratio[:, j], half[:, j], marker="o", ms=3, capsize=2, label=name)
    print(f"{name:<26}", *(f"{r:7.4f} ± {h:.4f}" for r, h in zip(ratio[:, j], half[:, j], strict=True)))
ax.set(xscale="log", yscale="log", xlabel="k", ylabel="|mean| / deviation", title="Signal to noise")
ax.legend()
one = scg.exact.moments(bound_of, np.array([theta, b]), rng=rng, k=1, gradient="pathwise")
exact = np.abs(one.mean) / np.sqrt(one.variance)
print("k = 1, exact:", *exact.round(4))
assert np.all(np.abs(exact - ratio[0, :2]) < 4 * half[0, :2]) and ratio[-1, 1] < ratio[0, 1] < ratio[-1, 2]

# %% [markdown]
# The ratio of the encoder's pathwise gradient falls, that of the doubly reparameterized one grows like that of
# $\theta$. At $k = 256$ they are 0.018 and 16: to be as accurate as one sample of the second, one has to average
# $(16 / 0.018)^2$ of the first, nearly a million.
#
# ## VAE and IWAE on the digits
#
# `examples.iwae` has the model: black and white digits, Bernoulli pixels, networks of two tanh layers. Four ways to
# train it, from the same networks, with the same number of steps: the ELBO with one sample, the ELBO as the mean of
# five samples, and $L_5$ with either gradient. Three seeds each. They are compared on 500 held-out digits by $L_{200}$,
# the same estimate of $\ln p(x)$ for all.
#
# > **Question.** $L_5$ is a better bound *at the same parameters*. Does it follow that training with it gives a better
# > model?

# %%
train, held, *_ = learning.load()
grey = np.round(255 * train).astype(np.uint8)
binary = training.binarise(np.round(255 * held[::2]).astype(np.uint8), np.random.default_rng(1905))
ways = {
    "ELBO, 1 sample": (1, "pathwise", "elbo"),
    "ELBO, 5 samples": (5, "pathwise", "elbo"),
    "L_5": (5, "pathwise", "iwae"),
    "L_5, DReG": (5, "dreg", "iwae"),
}
print(f"{len(grey)} digits to train on, {EPOCHS * len(grey) // learning.BATCH} steps of {learning.BATCH}")
assert binary.shape == (500, 196) and set(np.unique(binary)) == {0, 1}


# %%
def trained(seed, k, gradient, objective, epochs=EPOCHS):  # ELBO and L_200 of each held-out digit
    own = np.random.default_rng(seed)
    model = iwae.IWAE([8], [50], k, gradient, objective)
    params = model.initial(grey, own)
    black_and_white = partial(training.binarise, rng=own)  # afresh in each step
    learning.train(model.bound, params, grey, epochs=epochs, rng=own, prepare=black_and_white)
    return evaluation.bounds(lambda rows: model.log_weights(params, rows, own), binary, 200)


runs = {name: [trained(seed, *way) for seed in SEEDS] for name, way in ways.items()}
for name, found in runs.items():
    elbos, evidences = (np.mean([run[j] for run in found], axis=0) for j in (0, 1))
    print(learning.interval(f"{name}: L_200", evidences), learning.interval("  L_200 - ELBO", evidences - elbos))
assert all(np.all(elbo <= evidence) for found in runs.values() for elbo, evidence in found)

# %% [markdown]
# These intervals are wide because digits differ: some are hard for every model. They say nothing about which way is
# better. Two models see the same digits, and so we take the difference for each digit, and the mean of the differences.
# That is one number for each seed, and the seeds are what we have to average over: with another seed the training goes
# another way. Three numbers are few, and the interval (Student's $t$) says so.


# %%
def against(one, two):  # the difference of L_200, one number for each seed
    return np.array([np.mean(a[1] - b[1]) for a, b in zip(runs[one], runs[two], strict=True)])


base, *others = ways
for one, two in [*((name, base) for name in others), ("L_5", "ELBO, 5 samples"), ("L_5, DReG", "L_5")]:
    gaps = against(one, two)
    half = t.ppf(0.975, len(SEEDS) - 1) * error(gaps)
    print(f"{one} against {two}".ljust(40), f"{gaps.mean():.2f} ± {half:.2f}   seeds:", *gaps.round(2))
assert against("L_5", base).mean() > 0

# %% [markdown]
# It does not follow, but here it does. $L_5$ is better than the ELBO with one sample, and part of that is only that
# five samples are less noise: the ELBO with five samples takes a part of it. The encoders differ in another way, too.
# After training with $L_5$ the ELBO is further below $L_{200}$: $q$ is a good proposal for five samples, and a worse
# approximation of the posterior.
#
# > **Question.** All this is after 800 steps. Would a longer training change it?
#
# We train one seed of two ways twice as long. If that gains more than the ways differ by, the models are undertrained,
# and the table above compares how fast they learn, not where they end.

# %%
longer = {name: trained(SEEDS[0], *ways[name], epochs=2 * EPOCHS)[1] for name in (base, "L_5")}
for name, evidences in longer.items():
    print(learning.interval(f"{name}: gain", evidences - runs[name][0][1]))
print(learning.interval("L_5 - ELBO, twice as long", longer["L_5"] - longer[base]))
gains = [np.mean(longer[name] - runs[name][0][1]) for name in longer]
print("a longer training gains more than the ways differ by:", min(gains) > against("L_5", base).mean())
assert min(gains) > 0

# %% [markdown]
# They are undertrained: twice the steps gain 1.5 nats, and the ways differ by 1. So we have seen which way is ahead
# after 800 steps, and for one seed after 1,600, and no more. Burda et al. trained 3,280 epochs on 50,000 whole digits;
# there $L_{50}$ ended 2 nats above the ELBO with one sample and 1.6 above that with fifty. `python -m examples.compare`
# goes a part of this way.
#
# ## Diagnose it
#
# For the ELBO there is a well-known trick, *sticking the landing* (Roeder, Wu and Duvenaud, 2017). In
# $d \ln w = d \ln p(x, z) - d \ln q(z \mid \phi)$ the part of $\ln q$ at fixed $z$ is a score. Its mean is zero, so one
# may leave it out, and where $q$ is the posterior no noise is left. Somebody does the same in $L_2$.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. The mean of a score is zero. Why
# > may it not be left out here?

# %% tags=["exercise"]
params = np.array([theta, b])
broken = scg.trace(bound_of, params, rng=rng, k=2, gradient="sticking the landing")
truth = scg.exact.gradient(bound_of, params, rng=rng, k=2, gradient="pathwise")
print("exact gradient", *truth)

# %% [markdown] tags=["answer"]
# The verdict is *biased*, in $b$ alone. In $\sum_i W_i\, d \ln w_i$ the score is multiplied by $W_i$, and $W_i$ depends
# on $z_i$, too: $\mathbb{E} [W_i\, \partial \ln q(z_i)]$ is not zero. With $k = 1$ the weight is $W_1 = 1$, and the
# trick is right. DReG is the trick done properly. It replaces the mean of the score's part,
#
# $$\mathbb{E} \left[ W_i\, \frac{\partial \ln q(z_i)}{\partial \phi} \right]
#   = \mathbb{E} \left[ \frac{\partial W_i}{\partial z_i}\, \frac{\partial z_i}{\partial \phi} \right]
#   = \mathbb{E} \left[ (W_i - W_i^2)\, \frac{\partial \ln w_i}{\partial z_i}\,
#     \frac{\partial z_i}{\partial \phi} \right],$$
#
# and subtracts it from the part with $W_i$, which leaves $W_i^2$.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
with_one = scg.trace(bound_of, params, rng=rng, k=1, gradient="sticking the landing")
print(verdict.status, "for k = 2: mean", *scg.exact.moments(broken).mean, "exact", *truth)
print(scg.testing.judge(with_one, rng=rng).status, "for k = 1")
assert verdict.status == "biased" and scg.testing.judge(with_one, rng=rng).status == "unbiased"
