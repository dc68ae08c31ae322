# %% [markdown]
# # The autoencoder as a limit
#
# The autoencoder is older than the variational one. A network $\mu_1$ makes a code of $x$, a network $\mu_2$ makes an
# $x$ of the code, and training minimises $|x - \mu_2(\mu_1(x))|^2$. No probability is in sight. It is the VAE all the
# same, with
#
# $$p(x \mid z) = N(\mu_2(z), I), \qquad q(z \mid x) = N(\mu_1(x),\, s^2 I), \qquad s \to 0.$$
#
# This chapter takes the limit, $s = 1, 0.3, 0.1, 0.01$ and a point, and looks at each part of the bound: what stays,
# what becomes infinite, and what the prior does.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import quad

import scg
from examples import plots
from examples.autoencoder import Autoencoder
from examples.lecture import learning
from examples.lecture.tools import agrees, beside
from scg import distributions as dist
from scg import nn

rng = np.random.default_rng(7)
REPLICATES, EPOCHS, HIDDEN = 20_000, 40, 128
SHORT = {"REPLICATES": 4000, "EPOCHS": 4, "HIDDEN": 32}
widths = [1.0, 0.3, 0.1, 0.01]
d, D = 2, 5  # dimensions of the code and of x
prior = dist.Normal(0.0, 1.0)

# %% [markdown]
# ## The first part: the squared error
#
# With $z = \mu_1(x) + s\, \varepsilon$
#
# $$-\mathbb{E}_q \ln p(x \mid z) = \tfrac12\, \mathbb{E}\, |x - \mu_2(\mu_1(x) + s\, \varepsilon)|^2
#   + \tfrac{D}{2} \ln 2 \pi.$$
#
# **A slip.** At $s = 0$ the reconstruction is $\mu_2(\mu_1(x))$: the encoder first, then the decoder of what it gave.
# The formula of the lecture has it otherwise. And it is that only at $s = 0$: for every other $s$ the decoder sees the
# *sample*, not $\mu_1(x)$.
#
# > **Question.** How fast does the loss come to its limit, as $s$ or as $s^2$?
#
# The noise has mean zero, so the first order vanishes: the difference is
# $\frac{s^2}{2}\, \mathrm{tr}\, \nabla^2 \ell(\mu_1(x))$ and higher orders, where $\ell(z) = \frac12 |x - \mu_2(z)|^2$.

# %%
networks = nn.mlp([D, 8, d], rng, np.float64), nn.mlp([d, 8, D], rng, np.float64)
x = np.array([0.8, -0.4, 1.1, 0.3, -0.6])
code = nn.apply(networks[0], x)  # mu_1(x)


def error(m, rng, s):  # |x - mu_2(z)|^2 / 2 for z ~ N(m, s^2 I), or for z = m
    q = dist.Normal(m, s) if s else dist.Delta(m)
    z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
    return np.sum((x - nn.apply(networks[1], z)) ** 2) / 2


limit = scg.value_and_grad(error)(code, rng=rng, s=0)[0]
exact = {s: scg.exact.expectation(error, code, rng=rng, s=s) for s in widths}
assert np.isclose(limit, np.sum((x - nn.apply(networks[1], code)) ** 2) / 2)
print(f"point: {limit:.6f}")

# %%
draws = {s: scg.trace(error, code, rng=rng, s=s).run(rng=rng, replicates=REPLICATES).cost.value for s in widths}
for s in widths:
    print(beside(f"s = {s}", exact[s], draws[s]))
slopes = [(exact[s] - limit) / s**2 for s in widths]
print("(loss - limit) / s²:", *(f"{slope:.5f}" for slope in slopes))
assert abs(slopes[3] - slopes[2]) < 0.02 * slopes[3] and all(agrees(exact[s], draws[s]) for s in widths)

# %% [markdown]
# ## The second part: the divergence
#
# $$KL(q, p(z)) = \tfrac12 \left( |\mu_1(x)|^2 + d\, s^2 - d \right) - d \ln s.$$
#
# A narrow $q$ is expensive: each factor ten costs $\ln 10$ nats in each dimension of the code, 2.3 nats. A point costs
# infinitely much. The bound of an autoencoder, taken as a bound of the evidence, is $-\infty$.

# %%
grid = np.geomspace(0.005, 2, 100)
divergence = (np.sum(code**2) + d * grid**2 - d) / 2 - d * np.log(grid)
fig, ax = plt.subplots()
ax.semilogx(grid, divergence, label="KL(q, p)")
ax.semilogx(grid, -d * np.log(grid) + (np.sum(code**2) - d) / 2, "--", label="−d ln s + constant")
ax.set(xlabel="s", ylabel="nats", title="The divergence of a narrow q grows like −d ln s")
ax.legend()
for s in widths:
    q = dist.Normal(code, s)
    z = q.sample(rng, REPLICATES)
    exact = (np.sum(code**2) + d * s**2 - d) / 2 - d * np.log(s)
    print(beside(f"s = {s}", exact, np.sum(q.log_prob(z) - prior.log_prob(z), axis=1)))
assert np.isclose(np.sum(dist.kl_divergence(q, prior)), exact)  # the last one

# %% [markdown]
# **A slip.** "For $q = \delta_{\mu_1(x)}$ the divergence is $-\ln p(\mu_1(x))$." That is so only up to an infinite
# constant. Split it into the entropy and the rest:
#
# $$KL(q, p) = \underbrace{-\tfrac{d}{2} \ln 2 \pi e - d \ln s}_{-H(q),\; \to\; \infty}
#   \;\; \underbrace{-\; \mathbb{E}_q \ln p(z)}_{\to\; -\ln p(\mu_1(x))}.$$
#
# scg returns $-\ln p(\mu_1(x))$ for a point, too: it is the part that has a derivative. A point and a density have no
# finite divergence, and the numbers of two models with points for $q$ may only be compared if $d$ is the same.

# %%
print("     s       -H(q)    -E_q ln p")
for s in widths:
    q = dist.Normal(code, s)
    z = q.sample(rng, REPLICATES)
    entropy, rest = np.sum(q.entropy()), (d * np.log(2 * np.pi) + np.sum(code**2) + d * s**2) / 2
    print(f"{s:6}  {-entropy:10.5f}   {rest:10.5f}")
print(beside("the last, sampled", rest, -np.sum(prior.log_prob(z), axis=1)))
point = np.sum(dist.kl_divergence(dist.Delta(code), prior))
print(f" point    infinite   {point:10.5f}")
assert np.isclose(point, -np.sum(prior.log_prob(code))) and abs(rest - point) < 1e-3

# %% [markdown]
# Why does an infinite constant do no harm in training? It does not depend on the parameters. So the gradient of the
# bound has a limit, and the limit is the gradient of
#
# $$\tfrac12\, |x - \mu_2(\mu_1(x))|^2 + \tfrac12\, |\mu_1(x)|^2.$$
#
# Below is the gradient by the code $m = \mu_1(x)$; the chain rule carries it into the encoder.


# %%
def loss(m, rng, s):  # minus the bound, without D/2 ln 2 pi
    q = dist.Normal(m, s) if s else dist.Delta(m)
    return error(m, rng, s) + np.sum(dist.kl_divergence(q, prior))


at_point = scg.grad(loss)(code, rng=rng, s=0)
for s in widths:
    graph = scg.trace(loss, code, rng=rng, s=s)
    exact, estimates = scg.exact.gradient(graph), graph.gradients(rng=rng, replicates=REPLICATES)
    print(beside(f"s = {s}", exact, estimates))
print("point:", at_point)
assert np.allclose(exact, at_point, atol=1e-3) and agrees(exact, estimates)  # s = 0.01

# %% [markdown]
# ## The improper prior
#
# The plain autoencoder has no term $|\mu_1(x)|^2 / 2$. It belongs to the prior $p(z) = 1$, which is no density: its
# integral is infinite. There is nothing to draw from it.
#
# > **Question.** Is there a posterior, and is the ELBO still a lower bound of something?
#
# Bayes' rule needs $\int p(x \mid z)\, dz$, not $\int p(z)\, dz$. With a linear decoder $\mu_2(z) = W z$ whose columns
# are independent that is finite, and
#
# $$p(z \mid x) = N\left( (W^T W)^{-1} W^T x,\; (W^T W)^{-1} \right), \qquad
#   p(x) = \frac{(2 \pi)^{-(D - d)/2}}{\sqrt{\det W^T W}}\, e^{-|x - W \hat z|^2 / 2},$$
#
# where $\hat z$ is the mean of the posterior: the code of least squares.

# %%
W = rng.normal(size=(D, d))
precision = W.T @ W
best = np.linalg.solve(precision, W.T @ x)
log_p = -np.sum((x - W @ best) ** 2) / 2 - (D - d) / 2 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1] / 2
true_posterior = dist.MultivariateNormal(best, np.linalg.cholesky(np.linalg.inv(precision)))
z = np.array([0.3, -2.0])  # any z
by_bayes = np.sum(dist.Normal(W @ z, 1.0).log_prob(x)) - true_posterior.log_prob(z)  # and ln p(z) = 0
print(f"ln p(x) {log_p:.12f}\nby Bayes {by_bayes:.12f}")
wide = dist.Normal(best, 3.0)
z = wide.sample(rng, REPLICATES)
weights = np.exp(np.sum(dist.Normal(z @ W.T, 1.0).log_prob(x), axis=1) - np.sum(wide.log_prob(z), axis=1))
print(beside("∫ p(x|z) dz", np.exp(log_p), weights))
assert abs(log_p - by_bayes) < 1e-12 and agrees(np.exp(log_p), weights)

# %% [markdown]
# And the identity of chapter 1 holds as before, with $\mathrm{ELBO} = \mathbb{E}_q \ln p(x \mid z) + H(q)$. (The number
# that it bounds is no probability of $x$: a $p(z) = 2$ would double it. Its maximum is at the same place.)

# %%
q = dist.Normal(np.array([0.2, 0.1]), np.array([0.5, 0.8]))
fit = np.sum((x - W @ q.mean) ** 2) + np.sum(W**2 @ q.scale**2)
elbo = -fit / 2 - D / 2 * np.log(2 * np.pi) - np.sum(dist.kl_divergence(q, dist.Flat()))  # - KL(q, 1) = H(q)
gap = dist.kl_divergence(dist.MultivariateNormal(q.mean, np.diag(q.scale)), true_posterior)
z = q.sample(rng, REPLICATES)
print(f"ln p(x)   {log_p:.12f}\nELBO + KL {elbo + gap:.12f}")
print(beside("ELBO", elbo, np.sum(dist.Normal(z @ W.T, 1.0).log_prob(x), axis=1) - np.sum(q.log_prob(z), axis=1)))
assert abs(elbo + gap - log_p) < 1e-12

# %% [markdown]
# That the posterior is proper is a property of the *decoder*. Tanh units are bounded: far out $\mu_2(z)$ is constant,
# $p(x \mid z)$ does not fall any more, and its integral is infinite. With one code and a decoder of one unit:

# %%
one = 0.7
linear = [quad(lambda z: np.exp(dist.Normal(z, 1.0).log_prob(one)), -R, R)[0] for R in (5, 50, 500)]
tanh = [
    quad(lambda z: np.exp(dist.Normal(np.tanh(z), 1.0).log_prob(one)), -R, R, points=[-5, 0, 5], limit=500)[0]
    for R in (5, 50, 500)
]
for R, a, b in zip((5, 50, 500), linear, tanh, strict=True):
    print(f"integral from −{R} to {R}: linear {a:.6f}, tanh {b:.4f}")
normal = quad(lambda z: np.exp(dist.Normal(np.tanh(z), 1.0).log_prob(one) + prior.log_prob(z)), -np.inf, np.inf)[0]
draws = np.exp(dist.Normal(np.tanh(rng.normal(size=REPLICATES)), 1.0).log_prob(one))
print(beside("tanh, with p(z) = N(0, 1)", normal, draws))
assert abs(linear[2] - 1) < 1e-6 and tanh[2] > 9 * tanh[1] and agrees(normal, draws)

# %% [markdown]
# ## What N(0, I) adds
#
# A proper prior gives each decoder a posterior, and a distribution to draw new codes from. In the loss it adds
# $|\mu_1(x)|^2 / 2$, which draws the codes to the origin.
#
# > **Question.** $q$ is a point and $p(z) = N(0, I)$. Do the codes of the trained model look like samples of $N(0, I)$?
#
# Not for that reason. Make all codes $c$ times smaller and let the decoder multiply by $c$ first: the reconstruction is
# the same, and the penalty falls by $c^2$. Nothing stops $c$ where $q$ is a point. The noise does: multiplied by $c$,
# it is seen in the reconstruction. For a linear decoder
#
# $$\mathrm{loss}(c) = \tfrac12\, |x - W m|^2 + \frac{|m|^2}{2 c^2} + \frac{c^2 s^2}{2} \sum_{ij} W_{ij}^2 + \ldots,
#   \qquad c^4_{\min} = \frac{|m|^2}{s^2 \sum_{ij} W_{ij}^2}.$$

# %%
size = np.sum(W**2)


def scaled(c, s, m=best):  # without the part that does not depend on c
    return np.sum((x - W @ m) ** 2) / 2 + np.sum(m**2) / (2 * c**2) + c**2 * s**2 * size / 2


c = np.geomspace(0.3, 30, 300)
fig, ax = plt.subplots()
for s in (1.0, 0.3, 0.1, 0.0):
    ax.semilogx(c, scaled(c, s), label=f"s = {s:g}" if s else "point")
ax.set(xlabel="c", ylabel="nats", ylim=(0, 8), title="The loss when the decoder takes codes apart by c")
ax.legend()
lowest = (np.sum(best**2) / (0.1**2 * size)) ** 0.25
found = c[np.argmin(scaled(c, 0.1))]
print(f"s = 0.1: lowest at c = {found:.2f}, formula {lowest:.2f}")
assert abs(found / lowest - 1) < 0.02 and np.all(np.diff(scaled(c, 0.0)) < 0)

# %%
z = best / lowest + 0.1 * rng.normal(size=(REPLICATES, d))
draws = np.sum((x - lowest * z @ W.T) ** 2, axis=1) / 2 + np.sum((best / lowest) ** 2) / 2
print(beside("loss at the lowest", scaled(lowest, 0.1), draws))
assert agrees(scaled(lowest, 0.1), draws)

# %% [markdown]
# ## On the digits
#
# Five autoencoders of 14 by 14 pixels with eight codes and $p(z) = N(0, I)$, one for each $s$ and one for a point, and
# a sixth with a point and $p(z) = 1$. All start from the same networks. The model is that of `examples.autoencoder`;
# only $q$ gets a width. PCA with eight directions has the smallest error of all *linear* autoencoders.
#
# > **Question.** The squared error is that of $\mu_2(\mu_1(x))$. Which $s$ has the smallest? In which model are the
# > codes spread like $N(0, I)$?


# %%
class Wide(Autoencoder):
    s = 0.0

    def posterior(self, params, x):
        return dist.Normal(nn.apply(params["encoder"], x), self.s) if self.s else super().posterior(params, x)


train, held, *_ = learning.load()
models, settings = {}, {f"s = {s}": (s, "normal") for s in widths}
for name, (s, p) in (settings | {"point": (0, "normal"), "point, p(z) = 1": (0, "flat")}).items():
    model = Wide([HIDDEN], 8, prior=p)
    model.s, params = s, model.initial(255 * train, np.random.default_rng(7))
    learning.train(model.bound, params, train, epochs=EPOCHS, rng=rng)
    models[name] = model, params
eigenvalues = np.linalg.eigvalsh(np.cov(train.T, bias=True))
print(beside("PCA, training digits", eigenvalues[:-8].sum(), model.linear_error(train)))
assert agrees(eigenvalues[:-8].sum(), model.linear_error(train))

# %%
pca, errors, spreads = model.linear_error(held), {}, {}
print(learning.interval("error of PCA, held-out digits", pca))
for name, (model, params) in models.items():
    codes = model.posterior(params, held).mean
    errors[name] = np.sum((held - model.likelihood(params, codes).mean) ** 2, axis=1)
    spreads[name] = codes.std(axis=0).mean()
    print(learning.interval(name, errors[name]), f"  spread of a code {spreads[name]:.3f}")
assert errors["s = 0.1"].mean() < errors["s = 1.0"].mean() and spreads["s = 0.3"] > spreads["point"]

# %% [markdown]
# With $s = 1$ the noise hides what the codes say: the encoder gives nearly the same code to every digit, and the
# reconstruction is nearly always the mean digit. As $s$ falls the error falls towards that of the point. From $s = 0.3$
# on the spread of the codes falls with it, about as $\sqrt{s}$, which is what $1 / c_{\min}$ was for the linear
# decoder: a point pays nothing for a decoder that takes small codes apart. None of the models has codes like $N(0, I)$.
# For samples of the prior to look like digits $q$ needs a width, and it needs the *right* one: in the VAE $s_j(x)$ is
# learned. The flat prior reconstructs best, because it asks nothing of the codes; there is nothing to draw from it.
#
# The figure has the reconstructions of four of the models, and what their decoders make of $z \sim N(0, I)$. For a
# decoder that was trained on small codes these are far out, and the ink is much too strong.

# %%
shown, fresh = held[::84][:12], prior.sample(rng, (12, 8)).astype(np.float32)
fig, ax = plt.subplots(figsize=(6.4, 4.4))
rows = [shown]
ax.text(-3, 8, "held-out digits", ha="right", va="center")
for name in ("s = 1.0", "s = 0.1", "point", "point, p(z) = 1"):
    model, params = models[name]
    rebuilt = model.likelihood(params, model.posterior(params, shown).mean).mean
    rows += [rebuilt, model.likelihood(params, fresh).mean]
    labels = f"{name}: rebuilt", "z from N(0, I)"
    for k in (0, 1):
        ax.text(-3, 15 * (len(rows) + k - 2) + 8, labels[k], ha="right", va="center")
plots.show(ax, np.clip(np.concatenate(rows), 0, 1), (14, 14), 12, "")
ax.set_title("Held-out digits, rebuilt by each model, and its samples")
assert np.allclose(np.sum((shown - rebuilt) ** 2, axis=1), errors[name][::84][:12], rtol=1e-3)

# %% [markdown]
# ## Diagnose it
#
# Somebody wants to learn $s$, one for each of four data points, from minibatches of one. The reconstruction is
# $\mu_2(\mu_1(x))$, as in the autoencoder, and the divergence is in closed form. The decoder is linear, so we know the
# answer: the derivative of $\frac12 |x - W z|^2 + KL$ by $\ln s_i$ is $s_i^2 \sum_{jk} W_{jk}^2 + d\, s_i^2 - d$.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. Which $s$ does the code find,
# > for any data and any decoder?


# %% tags=["exercise"]
data = rng.normal(size=(4, D))
means = data @ W @ np.linalg.inv(precision)  # mu_1(x), the best linear one


def at_the_mean(log_s, rng):  # minus the bound of four data points
    batch = scg.minibatch(4, 1, rng=rng, name="i")
    x, m, s = batch.rows(data), batch.rows(means), np.exp(batch.rows(log_s))
    kl = np.sum(m**2) / 2 + d * np.sum((s**2 - 1) / 2 - np.log(s))
    return batch.factor * (np.sum((x - m @ W.T) ** 2) / 2 + kl)


log_s = np.log([0.9, 0.6, 0.4, 0.2])
truth = np.exp(2 * log_s) * (np.sum(W**2) + d) - d
broken = scg.trace(at_the_mean, log_s, rng=rng)
print("exact gradient", *truth.round(4))

# %% [markdown] tags=["answer"]
# The verdict is *biased*. The reconstruction has to be that of the sample, $z = \mu_1(x) + s\, \varepsilon$: the noise
# in it is what a large $s$ costs. Without it $s$ is in the KL alone, whose minimum is $s = 1$, the prior. So the code
# finds $s = 1$ for any data and any decoder, and the decoder, trained on means, has never seen what $q$ would draw.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
alone = d * np.exp(2 * log_s) - d  # the derivative of the KL
print(verdict.status, scg.exact.gradient(broken), alone)
assert verdict.status == "biased" and np.allclose(scg.exact.gradient(broken), alone)
