# %% [markdown]
# # PPCA and VAE
#
# A Gaussian code $z$ of a few dimensions, and an observation $x$ of many. With a linear decoder (probabilistic PCA) the
# evidence and the posterior have closed forms, so everything that variational inference promises can be checked. With
# networks for the decoder and the encoder the same bound is the variational autoencoder. At the end both are trained on
# handwritten digits.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp

import scg
from examples import plots, ppca
from examples.lecture import learning
from examples.lecture.tools import agrees, beside
from scg import distributions as dist
from scg import nn

rng = np.random.default_rng(6)
REPLICATES, EPOCHS, RATE, HIDDEN, GRID = 20_000, 150, 6e-3, 128, 320
SHORT = {"REPLICATES": 4000, "EPOCHS": 30, "RATE": 1e-2, "HIDDEN": 64, "GRID": 160}
prior = dist.Normal(0.0, 1.0)  # of each element of z

# %% [markdown]
# ## The linear Gaussian model
#
# $$p(z) = N(0, I), \qquad p(x \mid z) = N(W z + \mu,\; \sigma^2 I).$$
#
# A linear map of a Gaussian plus Gaussian noise is Gaussian. With $M = W^T W + \sigma^2 I$
#
# $$p(x) = N(\mu,\; W W^T + \sigma^2 I), \qquad
#   p(z \mid x) = N\left(M^{-1} W^T (x - \mu),\; \sigma^2 M^{-1}\right)$$
#
# (Tipping and Bishop, 1999). Bayes' rule says $\ln p(x) = \ln p(x, z) - \ln p(z \mid x)$ at *every* $z$: a test of both
# formulas at once. And $p(x)$ is the mean of $p(x \mid z)$ over the prior.

# %%
W = np.array([[0.9, 0.4], [0.3, 0.8], [-0.5, 0.6]])
mu, sigma, x = np.array([0.2, -0.1, 0.4]), 0.6, np.array([0.8, 0.9, 0.1])
M, z = W.T @ W + sigma**2 * np.eye(2), np.array([0.7, -0.3])  # any z
true_posterior = dist.MultivariateNormal(
    np.linalg.solve(M, W.T @ (x - mu)), np.linalg.cholesky(sigma**2 * np.linalg.inv(M))
)
log_evidence = dist.MultivariateNormal(mu, np.linalg.cholesky(W @ W.T + sigma**2 * np.eye(3))).log_prob(x)
log_joint = np.sum(prior.log_prob(z)) + np.sum(dist.Normal(W @ z + mu, sigma).log_prob(x))
draws = rng.normal(size=(REPLICATES, 2))
likelihoods = np.exp(np.sum(dist.Normal(draws @ W.T + mu, sigma).log_prob(x), axis=1))
print(f"ln p(x) {log_evidence:.12f}\nby Bayes {log_joint - true_posterior.log_prob(z):.12f}")
print(beside("p(x)", np.exp(log_evidence), likelihoods))
assert abs(log_joint - true_posterior.log_prob(z) - log_evidence) < 1e-12 and agrees(np.exp(log_evidence), likelihoods)

# %% [markdown]
# Now the bound, with $q(z \mid x) = N(m, \mathrm{diag}(s^2))$ as a VAE has it. Both parts have closed forms:
#
# $$\mathbb{E}_q \ln p(x \mid z) = -\frac{|x - \mu - W m|^2 + \sum_{ij} W_{ij}^2 s_j^2}{2 \sigma^2}
#   - \frac{D}{2} \ln 2 \pi \sigma^2,$$
#
# $$KL(q, p(z)) = \frac12 \sum_j \left( m_j^2 + s_j^2 - 1 - \ln s_j^2 \right).$$

# %%
m, s = np.array([0.5, 0.6]), np.array([0.5, 0.4])
fit = -(np.sum((x - mu - W @ m) ** 2) + np.sum(W**2 @ s**2)) / (2 * sigma**2) - 1.5 * np.log(2 * np.pi * sigma**2)
elbo = fit - np.sum(m**2 + s**2 - 1 - np.log(s**2)) / 2


def linear_bound(phi, rng):  # phi = (m, ln s)
    q = dist.Normal(phi[0], np.exp(phi[1]))
    z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
    return np.sum(dist.Normal(W @ z + mu, sigma).log_prob(x)) - np.sum(dist.kl_divergence(q, prior))


graph = scg.trace(linear_bound, np.array([m, np.log(s)]), rng=rng)
draws = graph.run(rng=rng, replicates=REPLICATES).cost.value
print(beside("ELBO", elbo, draws))
assert abs(scg.exact.expectation(graph) - elbo) < 1e-12 and agrees(elbo, draws)

# %% [markdown]
# And the gap is the divergence from the posterior, which we know.

# %%
gap = dist.kl_divergence(dist.MultivariateNormal(m, np.diag(s)), true_posterior)
print(f"ln p(x)   {log_evidence:.12f}\nELBO + KL {elbo + gap:.12f} = {elbo:.6f} + {gap:.6f}")
print(beside("ELBO + KL", log_evidence, draws + gap))
assert abs(elbo + gap - log_evidence) < 1e-12

# %% [markdown]
# ## What a diagonal q costs
#
# The best diagonal $q$ has the mean of the posterior and $s_j^2 = \sigma^2 / M_{jj}$. Its gap is
#
# $$KL = \frac12 \ln \frac{\prod_j M_{jj}}{\det M},$$
#
# zero where $M$ is diagonal, that is, where the columns of $W$ are orthogonal.
#
# > **Question.** We rotate the code: $W R$ in place of $W$. What happens to the evidence, and what to the best bound?
#
# $W R R^T W^T = W W^T$: the evidence does not see the rotation, the bound does. So it prefers one of the rotations, in
# which the elements of the code are independent in the posterior. PCA has orthogonal directions by definition; here
# they come from the form of $q$.

# %%
angles = np.linspace(0, np.pi, 181)
R = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
rotated = R.transpose(0, 2, 1) @ M @ R
gaps = np.log(rotated[:, 0, 0] * rotated[:, 1, 1] / np.linalg.det(M)) / 2
fig, ax = plt.subplots()
ax.axhline(log_evidence, color="0.3", label="ln p(x), for every rotation")
ax.plot(np.degrees(angles), log_evidence - gaps, label="best bound with a diagonal q")
ax.set(xlabel="rotation, degrees", ylabel="nats", title="The evidence does not see a rotation; the bound does")
ax.set_ylim(bottom=log_evidence - 1.4 * gaps.max())
ax.legend(loc="lower center")
best = np.array([true_posterior.mean, 0.5 * np.log(sigma**2 / np.diag(M))])
draws = scg.trace(linear_bound, best, rng=rng).run(rng=rng, replicates=REPLICATES).cost.value
print(beside("best ELBO, W as it is", log_evidence - gaps[0], draws))
assert gaps.min() < 1e-4 < gaps[0] and agrees(log_evidence - gaps[0], draws)

# %% [markdown]
# ## PPCA on the digits
#
# The likelihood has its maximum at a known place: $\mu$ is the mean, $\sigma^2$ the mean of the smaller eigenvalues of
# the data's covariance, and $W$ holds the leading eigenvectors, each times $\sqrt{\lambda_j - \sigma^2}$. The digits
# have 14 by 14 pixels here, and the code two elements.
#
# We know the answer, so we can see whether stochastic gradients find it: batches of 100 digits, one $z$ for each, and
# the linear encoder $q(z \mid x) = N(A (x - \mu),\, \mathrm{diag}(s^2))$. `examples.ppca` has the model.
#
# > **Question.** The training sees only the bound. Which three numbers are ordered, whatever it finds?

# %%
train, held, train_labels, held_labels = learning.load()
linear = ppca.PPCA(2)
learned = linear.initial(255 * train, rng)
learning.train(linear.bound, learned, train, epochs=EPOCHS, rng=rng, rate=1e-2)
best, exact = (model.log_likelihood(train) for model in (linear.best, linear.learned(learned)))
bounds = linear.bound(learned, train, rng).value  # one sample for each digit
degrees = ppca.angle(learned["weight"], linear.best.weight)
print(f"mean ln p(x): best possible {best.mean():.3f}, learned {exact.mean():.3f}; ELBO {bounds.mean():.3f}")
print(f"the learned plane and that of PCA are {degrees:.2f} degrees apart")
assert exact.mean() < best.mean() and degrees < 5

# %% [markdown]
# The ELBO is below the evidence of the learned model, which is below that of the best one. The first gap is the
# divergence of the learned encoder from the posterior, which the linear model knows, averaged over the digits.

# %%
V, c, noise = learned["weight"], np.exp(learned["log_width"]), np.exp(learned["log_scale"]) ** 2
precision = (V.T @ V + noise * np.eye(2)) / noise
# the mean of q minus that of the posterior
off = (train - learned["mean"]) @ (learned["guide"] - V @ np.linalg.inv(precision) / noise)
gap = (np.diag(precision) @ c**2 + np.mean(np.sum(off @ precision * off, axis=1)) - 2) / 2
gap -= np.linalg.slogdet(precision)[1] / 2 + np.sum(np.log(c))
print(beside("ln p(x) - ELBO", gap, exact - bounds))
assert gap > 0 and agrees(gap, exact - bounds)

# %% [markdown]
# ## The variational autoencoder
#
# Networks in place of the matrices. The decoder gives a mean and a scale for each pixel $j$, the encoder for each
# element of the code:
#
# $$p(x_j \mid z) = N\left(x_j;\; \mu_j(z),\, \sigma_j(z)^2\right), \qquad
#   q(z_j \mid x) = N\left(z_j;\; m_j(x),\, s_j(x)^2\right).$$
#
# The posterior has no formula any more. But the bound needs only $q$ and the joint density, so it is the same as
# before: one part by a sample $z_j = m_j(x) + s_j(x)\, \varepsilon_j$, the other in closed form.
#
# Many pixels are white in all digits. A Gaussian with its mean there and $\sigma_j \to 0$ has a density without bound,
# and the likelihood would be infinite. So $\sigma_j(z)$ stays above 0.05.

# %%
D, latents, start = train.shape[1], 2, train.mean(axis=0)


def encoder(params, x):  # m_j(x), s_j(x)
    h = nn.apply(params["encoder"], x - start)
    return dist.Normal(h[:, :latents], np.exp(h[:, latents:]))


def decoder(params, z):  # mu_j(z), sigma_j(z)
    h = nn.apply(params["decoder"], z)
    return dist.Normal(h[:, :D] + start, 0.05 + np.exp(h[:, D:] - 1.5))


params = {"encoder": nn.mlp([D, HIDDEN, 2 * latents], rng), "decoder": nn.mlp([latents, HIDDEN, 2 * D], rng)}
q = encoder(params, held[:1])
by_hand = np.sum(q.mean**2 + q.scale**2 - 1 - 2 * np.log(q.scale)) / 2
z = q.sample(rng, REPLICATES)[:, 0]
print(beside("KL(q, p(z))", by_hand, np.sum(q.log_prob(z) - prior.log_prob(z), axis=1)))
assert np.isclose(np.sum(dist.kl_divergence(q, prior)), by_hand, rtol=1e-5)

# %% [markdown]
# > **Question.** Both models have two numbers for a code. The linear one reaches the highest likelihood that a linear
# > one can have. Will the network be above it, and will you see why in the digits?


# %%
def bound(params, x, rng):  # one number for each row
    q = encoder(params, x)
    z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
    return np.sum(decoder(params, z).log_prob(x), axis=1) - np.sum(dist.kl_divergence(q, prior), axis=1)


curve = learning.train(bound, params, train, epochs=EPOCHS, rng=rng, rate=RATE)
elbos, pca = bound(params, held, rng).value, linear.best.log_likelihood(held)
print(f"held-out digits, ln p(x) of the best PPCA: {pca.mean():.2f}")
print(learning.interval("ELBO of the VAE, the same digits", elbos))
print(learning.interval("the difference, by digits", elbos - pca))
fig, ax = plt.subplots()
ax.plot(np.arange(1, EPOCHS + 1), curve)
ax.set(xlabel="epoch", ylabel="nats for a digit", title="The bound of the VAE while it is trained")
assert np.mean(elbos - pca) > 6 * np.std(elbos - pca) / np.sqrt(len(held))

# %% [markdown]
# The bound of one model is above the evidence of the other, and an inequality that goes this way round is safe: the
# evidence of the VAE is higher still. But most of the difference is no merit of the networks. PPCA has one $\sigma$ for
# all pixels, the white margin and the ink, and the VAE has its own for each. How well two numbers describe a digit is
# better seen in the squared error of the reconstruction $\mu(m(x))$. No linear code of two numbers has a smaller one on
# the training digits than PCA, whose error is a sum of eigenvalues.

# %%
eigenvalues = np.linalg.eigvalsh(np.cov(train.T, bias=True))
axes = np.linalg.qr(linear.best.weight)[0]


def squared_errors(x):
    rebuilt = decoder(params, encoder(params, x).mean).mean
    away = x - start
    return np.sum((x - rebuilt) ** 2, axis=1), np.sum((away - away @ axes @ axes.T) ** 2, axis=1)


of_vae, of_pca = squared_errors(train)
print(beside("PCA, training digits", eigenvalues[:-2].sum(), of_pca))
print(learning.interval("VAE, training digits", of_vae))
of_vae, of_pca = squared_errors(held)
print(learning.interval("PCA - VAE, held-out digits", of_pca - of_vae))
assert agrees(eigenvalues[:-2].sum(), squared_errors(train)[1]) and np.mean(of_pca - of_vae) > 0

# %% [markdown]
# Below are held-out digits, what each model makes of its two numbers, and means of $p(x \mid z)$ at samples of the
# prior: digits that nobody wrote.

# %%
shown = held[::84][:12]
rows = [shown, decoder(params, encoder(params, shown).mean).mean, start + (shown - start) @ axes @ axes.T]
rows.append(decoder(params, prior.sample(rng, (12, latents)).astype(np.float32)).mean)
names = ["held-out digits", "VAE", "PCA", "samples of the VAE"]
fig, ax = plt.subplots(figsize=(6.4, 2.5))
plots.show(ax, np.clip(np.concatenate(rows), 0, 1), (14, 14), 12, "")
ax.set_title("Digits, and what is made of two numbers")
for k, name in enumerate(names):
    ax.text(-3, 15 * k + 8, name, ha="right", va="center")
rebuilt = np.sum((rows[0] - rows[1]) ** 2, axis=1)
print("squared errors of the VAE, these digits:", np.round(rebuilt).astype(int))
assert np.allclose(rebuilt, squared_errors(shown)[0], rtol=1e-4)

# %% [markdown]
# A code of two numbers can be drawn. On the left the codes $m(x)$ of the held-out digits, coloured by a label that the
# training never saw; on the right what the decoder makes of a grid of codes.
#
# > **Question.** The bound charges each digit with $KL(q, N(0, I))$. What distribution do the codes have, over all
# > digits, if the model fits the data?
#
# Then $\frac{1}{n} \sum_i q(z \mid x_i)$ is the mean of the posteriors, which is the prior, with
# $\mathbb{E} (z_1^2 + z_2^2) = 2$. The mean below is about 3: the codes lie further out, and samples of the prior miss
# some of them. This model, with two numbers for a code, does not fit the digits perfectly.

# %%
q = encoder(params, held)
sides = np.linspace(-2, 2, 11, dtype=np.float32)
plane = np.stack(np.meshgrid(sides, -sides), axis=-1).reshape(-1, 2)
fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.4))
dots = left.scatter(*q.mean.T, c=held_labels, cmap="tab10", s=4, rasterized=True)
fig.colorbar(dots, ax=left, label="label", location="bottom")
left.set(xlabel="z₁", ylabel="z₂", title="Codes of held-out digits")
plots.show(right, np.clip(decoder(params, plane).mean, 0, 1), (14, 14), 11, "")
right.set_title("Decoded, from −2 to 2")
second = np.sum(q.mean**2 + q.scale**2, axis=1)
draws = np.sum(q.sample(rng, REPLICATES // 10) ** 2, axis=2).mean(axis=1)
print(beside("E(z₁² + z₂²)", second.mean(), draws))
assert agrees(second.mean(), draws)

# %% [markdown]
# ## The gap of one digit
#
# Codes have two dimensions, so for one digit the integral over all codes is a sum over a fine grid:
# $p(x) = \int p(x \mid z)\, p(z)\, dz$, the posterior, the bound, and the divergence between them, all without samples.
# The figure has the posterior and the $q$ of the encoder.

# %%
sides = np.linspace(-4, 4, GRID, dtype=np.float32)
grid, area = np.stack(np.meshgrid(sides, sides), axis=-1), (8 / (GRID - 1)) ** 2
one = held[84:85]
joint = np.array([decoder(params, row).log_prob(one).sum(axis=1) for row in grid], float)
joint += prior.log_prob(grid).sum(-1)
log_p = logsumexp(joint) + np.log(area)  # ln p(x)
posterior, q = np.exp(joint - log_p), encoder(params, one)
log_q = q.log_prob(grid).sum(-1).astype(float)
total = np.exp(log_q).sum() * area
print(f"ln p(x) = {log_p:.4f}; the density q adds up to {total:.6f}")
assert abs(total - 1) < 1e-3

# %%
elbo = np.sum(np.exp(log_q) * (joint - log_q)) * area
divergence = np.sum(np.exp(log_q) * (log_q - joint + log_p)) * area
draws = bound(params, np.repeat(one, REPLICATES // 4, axis=0), rng).value
print(f"ln p(x) = {log_p:.4f} = ELBO {elbo:.4f} + KL {divergence:.4f}")
print(beside("ELBO", elbo, draws))
near = [slice(*np.searchsorted(sides, q.mean[0, k] + np.array([-4, 4]) * q.scale[0, k])) for k in (1, 0)]
fig, ax = plt.subplots()
ax.contourf(sides[near[1]], sides[near[0]], posterior[near[0], near[1]], levels=8, cmap="Greys")
ax.contour(sides[near[1]], sides[near[0]], np.exp(log_q)[near[0], near[1]], levels=5, cmap="autumn")
ax.set(xlabel="z₁", ylabel="z₂", title="The posterior of one digit (grey) and the q of the encoder (lines)")
assert divergence > 0 and agrees(elbo, draws)

# %% [markdown]
# The difference of the two has a name for each cause: the *approximation* gap, because no Gaussian with a diagonal
# covariance is this posterior, and the *amortisation* gap, because one network serves all digits and does not give each
# its best $m$ and $s$.
#
# > **Question.** Which of the two is the larger one in the figure?
#
# The $q$ with the means and widths of the posterior tells. It is a diagonal Gaussian, so its divergence is at least the
# approximation gap.

# %%
mass = posterior * area
means = np.array([np.sum(mass * grid[..., k]) for k in (0, 1)])
widths = np.sqrt([np.sum(mass * (grid[..., k] - means[k]) ** 2) for k in (0, 1)])
log_fitted = dist.Normal(means, widths).log_prob(grid).sum(-1)
approximation = np.sum(np.exp(log_fitted) * (log_fitted - joint + log_p)) * area
print(f"of {divergence:.4f} nats the approximation gap is at most {approximation:.4f}")
assert 0 < approximation < divergence / 2

# %% [markdown]
# Nearly all of the gap of this digit is amortisation: the posterior is almost a Gaussian, and the encoder misses its
# place and its widths.
#
# ## Diagnose it
#
# Back to the linear model, where we can compute everything. It is customary that the encoder gives $h_j = \ln s_j^2$.
# Somebody writes the encoder for that, and the KL is the right formula of $h$. The code runs, and the bound that it
# reports is even better than before.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. Where is the mistake? And does
# > the code report a bound?


# %% tags=["exercise"]
def wrong_bound(phi, rng):  # phi = (m, h)
    m, h = phi[0], phi[1]
    z = scg.sample(dist.Normal(m, np.exp(h)), scg.Reparameterized(), rng=rng, name="z")
    kl = np.sum(m**2 + np.exp(h) - 1 - h) / 2
    return np.sum(dist.Normal(W @ z + mu, sigma).log_prob(x)) - kl


def right_bound(phi, rng):
    return linear_bound(np.stack([phi[0], phi[1] / 2]), rng)


phi = np.array([m, 2 * np.log(s)])
broken, truth = scg.trace(wrong_bound, phi, rng=rng), scg.exact.gradient(right_bound, phi, rng=rng)
print("exact gradient", *truth)

# %% [markdown] tags=["answer"]
# The verdict is *biased*: $e^{h}$ is the variance, and the sample takes it for the standard deviation. It should be
# $e^{h/2}$. Two different $q$ are in one formula, so it is no bound: the decoder sees the noise $e^{2h} < e^{h}$, while
# the KL is charged for the wider one. Its maximum is *above* the evidence. A bound that is better than expected is a
# reason to look for the mistake.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
at = np.array([true_posterior.mean, np.log([0.5, 0.5])])
highest = scg.exact.expectation(wrong_bound, at, rng=rng)
print(f"{verdict.status}; ln p(x) = {log_evidence:.4f}, the wrong bound there {highest:.4f}")
assert verdict.status == "biased" and highest > log_evidence
