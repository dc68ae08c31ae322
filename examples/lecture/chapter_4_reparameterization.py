# %% [markdown]
# # Reparameterization
#
# Write the sample as a function of noise that knows nothing of the parameters: $z = g(\varepsilon, \phi)$ with
# $\varepsilon \sim p(\varepsilon)$. Then the parameter has left the density, and the derivative goes under the
# integral:
#
# $$\frac{\partial}{\partial \phi}\, \mathbb{E}_{q(z \mid \phi)} f(z)
#   = \frac{\partial}{\partial \phi} \int p(\varepsilon)\, f(g(\varepsilon, \phi))\, d\varepsilon
#   = \mathbb{E}_{p(\varepsilon)} \left[ f'(z)\, \frac{\partial g(\varepsilon, \phi)}{\partial \phi} \right].$$
#
# This is the second row of the table in chapter 2. It asks more than the log-derivative trick: $f$ must have a
# derivative, and $g$ must exist. There are three ways to find a $g$:
#
# | way | $z = g(\varepsilon, \phi)$ | for |
# | --- | --- | --- |
# | location and scale | $\mu + \sigma \varepsilon$ | normal, Laplace, logistic, Cauchy, uniform |
# | inverse of the distribution function | $F^{-1}(u \mid \phi)$, $u \sim U(0, 1)$ | exponential, Gompertz, Weibull |
# | transformation of the other two | $\exp(\mu + \sigma \varepsilon)$, sums | log-normal, Erlang |
#
# For each one we look at the density beside a histogram, and at the derivative beside that of the score function.

# %% tags=["setup"]
from math import factorial, gamma
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import quad
from scipy.special import gammainc, ndtr, polygamma

import scg
from examples.lecture.tools import agrees, beside
from scg import distributions as dist

rng = np.random.default_rng(14)
REPLICATES = 20_000
SHORT = {"REPLICATES": 4000}


def picture(z, density, title):
    """A histogram of samples beside the density that they should have."""
    fig, ax = plt.subplots(figsize=(6.4, 2.4))
    grid = np.linspace(*np.quantile(z, [0.001, 0.995]), 300)
    ax.hist(z, bins=60, range=(grid[0], grid[-1]), density=True, color="0.8")
    ax.plot(grid, density(grid))
    ax.set(xlabel="z", title=title)


def both_ways(cost, phi):
    """Exact means and variances of both gradients of E cost(z), each beside its estimate; the exact ones."""
    found = {}
    for name, estimator in {"pathwise": scg.Reparameterized(), "score function": scg.ScoreFunction()}.items():
        graph = scg.trace(cost, phi, rng=rng, estimator=estimator)
        found[name], estimates = scg.exact.moments(graph), graph.gradients(rng=rng, replicates=REPLICATES)
        print(beside(name, found[name].mean, estimates))
        print(beside("  variance", found[name].variance, (estimates - found[name].mean) ** 2))
    return found["pathwise"], found["score function"]


# %% [markdown]
# ## Location and scale
#
# $z = m + s\, \varepsilon$ with $\varepsilon \sim N(0, 1)$ has the density $N(z; m, s^2)$, and
# $\partial z / \partial m = 1$, $\partial z / \partial s = \varepsilon$.

# %%
m, s = 0.5, 0.8
z = m + s * rng.normal(size=REPLICATES)
picture(z, lambda z: np.exp(dist.Normal(m, s).log_prob(z)), "z = m + s ε, beside N(z; m, s²)")
print(beside("P(z < 1)", ndtr((1 - m) / s), z < 1))
assert agrees(ndtr((1 - m) / s), z < 1)

# %% [markdown]
# > **Question.** With $f(z) = z^2$ the gradient is $(2m, 2s)$ either way. Which of the two estimators has less
# > variance, and why?
#
# The pathwise one uses $f' = 2z$: it knows in which direction $f$ grows. The score function sees one number, $f(z)$,
# and has to find out the direction from many. In $m$ the variances are $4 s^2$ and (chapter 3)
# $m^4 / s^2 + 14 m^2 + 15 s^2$.


# %%
def square(phi, rng, estimator):
    return scg.sample(dist.Normal(phi[0], phi[1]), estimator, rng=rng, name="z") ** 2


pathwise, score = both_ways(square, np.array([m, s]))
by_hand = 4 * s**2, m**4 / s**2 + 14 * m**2 + 15 * s**2
assert np.allclose([pathwise.variance[0], score.variance[0]], by_hand)

# %% [markdown]
# But "pathwise is better" is no theorem. It pays with the *slope* of $f$, the score function with its *size*. For
# $f(z) = \sin(\omega z)$ and $z \sim N(m, 1)$ at $m = 0$ the slope grows with $\omega$, and the size does not:
#
# $$\mathrm{Var}_{\mathrm{path}} = \omega^2\, \mathbb{E} \cos^2 \omega z - \mu^2, \qquad
#   \mathrm{Var}_{\mathrm{score}} = \mathbb{E} \left[ z^2 \sin^2 \omega z \right] - \mu^2, \qquad
#   \mu = \omega e^{-\omega^2 / 2}.$$

# %%
omega = np.linspace(0.1, 3, 60)
mean, far = omega * np.exp(-(omega**2) / 2), np.exp(-2 * omega**2)  # far = E cos(2 omega z)
path = omega**2 * (1 + far) / 2 - mean**2
score = (1 - (1 - 4 * omega**2) * far) / 2 - mean**2
fig, ax = plt.subplots()
ax.semilogy(omega, path, label="pathwise")
ax.semilogy(omega, score, label="score function")
ax.set(xlabel="ω", ylabel="variance", title="Two variances of the gradient of E sin(ωz)")
ax.legend()
z, last = rng.normal(size=REPLICATES), omega[-1]
print(beside("pathwise, ω = 3", path[-1], (last * np.cos(last * z) - mean[-1]) ** 2))
print(beside("score, ω = 3", score[-1], (np.sin(last * z) * z - mean[-1]) ** 2))
assert path[0] < score[0] and path[-1] > score[-1]

# %% [markdown]
# ## The inverse of the distribution function
#
# If $u$ is uniform on $(0, 1)$ then $z = F^{-1}(u)$ has the distribution function $F$, because
# $P(F^{-1}(u) < z) = P(u < F(z)) = F(z)$. For the exponential distribution $F(z) = 1 - e^{-\lambda z}$, so
#
# $$z = -\frac{\ln(1 - u)}{\lambda}, \qquad \frac{\partial z}{\partial \lambda} = -\frac{z}{\lambda}.$$
#
# **A slip.** The lecture writes $z = \lambda x$ here. With $x$ exponential of rate 1 that has the rate $1 / \lambda$:
# one has to divide.

# %%
rate, u = 2.5, rng.random(REPLICATES)
z, slip = -np.log(1 - u) / rate, -np.log(1 - u) * rate
picture(z, lambda z: rate * np.exp(-rate * z), "z = -ln(1 - u) / λ, beside λ exp(-λz)")
print(beside("P(z < 1)", 1 - np.exp(-rate), z < 1))
print(beside("P(λx < 1)", 1 - np.exp(-1 / rate), slip < 1))
assert agrees(1 - np.exp(-rate), z < 1) and agrees(1 - np.exp(-1 / rate), slip < 1)

# %% [markdown]
# The gradient of $\mathbb{E} z^2 = 2 / \lambda^2$ is $-4 / \lambda^3$.


# %%
def exponential(rate, rng, estimator):
    return scg.sample(dist.Exponential(rate), estimator, rng=rng, name="z") ** 2


pathwise, score = both_ways(exponential, rate)
assert np.allclose([pathwise.mean, score.mean], -4 / rate**3) and pathwise.variance < score.variance

# %% [markdown]
# The uniform distribution on $(a, b)$ has $F^{-1}(u) = a + (b - a) u$, which is location and scale as well. From
# $\mathbb{E} z^2 = (a^2 + a b + b^2) / 3$ its gradient is $(2a + b,\; a + 2b) / 3$.

# %%
a, b = -0.5, 1.5


def uniform(phi, rng):
    return scg.sample(dist.Uniform(phi[0], phi[1]), scg.Reparameterized(), rng=rng, name="z") ** 2


graph, exact = scg.trace(uniform, np.array([a, b]), rng=rng), np.array([2 * a + b, a + 2 * b]) / 3
picture(a + (b - a) * u, lambda z: np.full(z.shape, 1 / (b - a)), "z = a + (b - a) u, beside 1 / (b - a)")
estimates = graph.gradients(rng=rng, replicates=REPLICATES)
found = scg.exact.moments(graph)
print(beside("pathwise", exact, estimates))
print(beside("  variance", found.variance, (estimates - exact) ** 2))
assert np.allclose(found.mean, exact) and agrees(exact, estimates)

# %% [markdown]
# The Gompertz distribution describes ages at death: the rate of dying grows like $e^{\theta z}$. From
# $1 - F(z) = \exp(-\eta\, (e^{\theta z} - 1))$
#
# $$z = \frac{1}{\theta} \ln \left( 1 - \frac{\ln(1 - u)}{\eta} \right), \qquad
#   q(z) = \eta\, \theta\, e^{\theta z} \exp(-\eta\, (e^{\theta z} - 1)).$$

# %%
eta, theta = 0.5, 0.8
z = np.log(1 - np.log(1 - u) / eta) / theta


def density(z):
    return eta * theta * np.exp(theta * z - eta * np.expm1(theta * z))


picture(z, density, "Gompertz by its inverse, beside its density")
print(beside("P(z < 1)", quad(density, 0, 1)[0], z < 1))
assert np.isclose(quad(density, 0, 1)[0], -np.expm1(-eta * np.expm1(theta))) and agrees(quad(density, 0, 1)[0], z < 1)

# %% [markdown]
# There is no closed form of the gradient of $\mathbb{E} z = \int_0^\infty (1 - F(z))\, dz$; quadrature gives it.


# %%
def gompertz(phi, rng, estimator):
    return scg.sample(dist.Gompertz(phi[0], phi[1]), estimator, rng=rng, name="z")


pathwise, score = both_ways(gompertz, np.array([eta, theta]))
by_eta = quad(lambda z: -np.expm1(theta * z) * np.exp(-eta * np.expm1(theta * z)), 0, 40)[0]
by_theta = quad(lambda z: -eta * z * np.exp(theta * z - eta * np.expm1(theta * z)), 0, 40)[0]
assert np.allclose(pathwise.mean, [by_eta, by_theta]) and np.allclose(score.mean, [by_eta, by_theta])

# %% [markdown]
# ## Transformations
#
# If $x$ has the density $p(x)$, then $z = h(x)$ with an increasing $h$ has the density $p(h^{-1}(z)) / h'(h^{-1}(z))$.
# With $h = \exp$ and $x = \mu + \sigma \varepsilon$ this is the log-normal,
#
# $$q(z) = \frac{1}{z}\, N(\ln z;\; \mu, \sigma^2), \qquad \mathbb{E} z = e^{\mu + \sigma^2 / 2}.$$

# %%
mu, sigma = 0.2, 0.5
z = np.exp(mu + sigma * rng.normal(size=REPLICATES))


def density(z):
    return np.exp(dist.Normal(mu, sigma).log_prob(np.log(z))) / z


picture(z, density, "z = exp(μ + σε), beside the log-normal density")
print(beside("P(z < 1)", quad(density, 0, 1)[0], z < 1))
assert np.isclose(quad(density, 0, 1)[0], ndtr(-mu / sigma)) and agrees(ndtr(-mu / sigma), z < 1)


# %%
def log_normal(phi, rng, estimator):
    return scg.sample(dist.LogNormal(phi[0], phi[1]), estimator, rng=rng, name="z")


pathwise, score = both_ways(log_normal, np.array([mu, sigma]))
exact = np.exp(mu + sigma**2 / 2) * np.array([1, sigma])
assert np.allclose(pathwise.mean, exact) and np.all(pathwise.variance < score.variance)

# %% [markdown]
# The sum of $n$ independent exponential variables of one rate has the Erlang distribution,
#
# $$z = -\frac{1}{\lambda} \sum_{i=1}^n \ln(1 - u_i), \qquad
#   q(z) = \frac{\lambda^n z^{n-1} e^{-\lambda z}}{\Gamma(n)}, \qquad \Gamma(n) = (n - 1)!$$
#
# **A slip.** The lecture has $\Gamma(n) = n!$. That density would integrate to $1/n$.

# %%
n, rate = 3, 1.5
z = -np.log(1 - rng.random((REPLICATES, n))).sum(axis=1) / rate


def density(z):
    return rate**n * z ** (n - 1) * np.exp(-rate * z) / factorial(n - 1)


picture(z, density, "The sum of three exponentials, beside the Erlang density")
print(f"Gamma(3) = {gamma(3):g} = 2!; the integral of the density {quad(density, 0, np.inf)[0]:.12f}")
print(beside("P(z < 1)", quad(density, 0, 1)[0], z < 1))
assert abs(quad(density, 0, np.inf)[0] - 1) < 1e-9 and agrees(quad(density, 0, 1)[0], z < 1)

# %% [markdown]
# **A slip.** The sum needs *one* rate. With rates 1 and 5 it is no Erlang variable: an Erlang of the same mean
# $1 + 1/5$ has the variance $1.2^2 / 2 = 0.72$, and the sum has $1 + 1/25$.

# %%
rates = np.array([1.0, 5.0])
unequal = (-np.log(1 - rng.random((REPLICATES, 2))) / rates).sum(axis=1)
print(beside("mean", 1.2, unequal))
print(beside("variance", 1.04, (unequal - 1.2) ** 2))
assert agrees(1.04, (unequal - 1.2) ** 2) and not agrees(0.72, (unequal - 1.2) ** 2)

# %% [markdown]
# The derivative by hand, of $\mathbb{E} z^2$. With the moments
# $M_k = \mathbb{E} z^k = \Gamma(n + k) / (\Gamma(n)\, \lambda^k)$ the gradient is $-2 M_2 / \lambda$, and both
# variances are known.

# %%
M = [gamma(n + k) / gamma(n) / rate**k for k in range(7)]
exact = -2 * M[2] / rate
pathwise, score = 2 * z * (-z / rate), z**2 * (n / rate - z)
variances = [4 * M[4] / rate**2 - exact**2, (n / rate) ** 2 * M[4] - 2 * n / rate * M[5] + M[6] - exact**2]
for name, estimates, variance in zip(("pathwise", "score function"), (pathwise, score), variances, strict=True):
    print(beside(name, exact, estimates))
    print(beside("  variance", variance, (estimates - exact) ** 2))
graph = scg.trace(lambda rate, rng: scg.sample(dist.Erlang(n, rate), scg.ScoreFunction(), rng=rng) ** 2, rate, rng=rng)
assert np.isclose(scg.exact.moments(graph).variance, variances[1]) and agrees(exact, pathwise)

# %% [markdown]
# ## A support that moves
#
# > **Question.** For $z$ uniform on $(0, \theta)$ the score is $\partial \ln q / \partial \theta = -1/\theta$, a
# > constant. Its mean is not zero. What has gone wrong with the proof of chapter 3?
#
# The upper limit of the integral depends on $\theta$, too, and its derivative is a term of its own:
#
# $$\frac{d}{d\theta} \int_0^\theta \frac{f(z)}{\theta}\, dz
#   = \mathbb{E} \left[ f\, \frac{\partial \ln q}{\partial \theta} \right] + \frac{f(\theta)}{\theta}.$$
#
# With $f = z^2$ the score has the mean $-\theta / 3$, even the sign is wrong; the end of the interval brings $\theta$;
# the gradient is $2\theta / 3$. So scg refuses the score function here, and says what to use.

# %%
theta = 1.5
z = theta * rng.random(REPLICATES)
print(beside("score function", -theta / 3, z**2 * (-1 / theta)))
print(beside("with the end", 2 * theta / 3, z**2 * (-1 / theta) + theta))
print(beside("pathwise", 2 * theta / 3, 2 * z * (z / theta)))
try:
    scg.sample(dist.Uniform(0.0, theta), scg.ScoreFunction(), rng=rng, name="z")
    refused = ""
except scg.ScgError as error:
    refused = str(error).partition(" (")[0]
print(fill(refused, 80))
assert "fixed support" in refused and agrees(2 * theta / 3, 2 * z * (z / theta))

# %% [markdown]
# ## Implicit differentiation
#
# The gamma distribution with a shape $a$ that is no integer has an inverse $F^{-1}$, but no formula for it. We do not
# need one. Differentiate $F(z, a) = u$ with $u$ held:
#
# $$\frac{\partial F}{\partial z}\, \frac{dz}{da} + \frac{\partial F}{\partial a} = 0, \qquad
#   \frac{dz}{da} = -\frac{\partial F(z, a) / \partial a}{q(z \mid a)}$$
#
# (Figurnov, Mohamed and Mnih, 2018). So $z$ may come from any sampler, and the derivative needs $F$, not its inverse.
# This serves gamma, beta, Dirichlet, Student's t, von Mises, and mixtures. Here is the formula with a difference
# quotient for $\partial F / \partial a$, at one sample.


# %%
def draw(a, rng):
    return scg.sample(dist.Gamma(a, 1.0), scg.Reparameterized(), rng=rng, name="z")


a, h = 2.3, 1e-5
z, slope = scg.value_and_grad(draw)(a, rng=rng)
implicit = -(gammainc(a + h, z) - gammainc(a - h, z)) / (2 * h) / np.exp(dist.Gamma(a, 1.0).log_prob(z))
print(f"z = {z:.6f}, dz/da {slope:.8f}, by the formula {implicit:.8f}")
assert abs(slope - implicit) < 1e-7

# %% [markdown]
# What it adds is what every pathwise derivative adds: less variance. With $f = \ln z$ the gradient is $\psi'(a)$.


# %%
def log_gamma(a, rng, estimator):
    return np.log(scg.sample(dist.Gamma(a, 1.0), estimator, rng=rng, name="z"))


z = rng.gamma(a, size=REPLICATES)
picture(z, lambda z: z ** (a - 1) * np.exp(-z) / gamma(a), "Samples of a gamma variable, a = 2.3, beside the density")
print(beside("P(z < 1)", gammainc(a, 1), z < 1))
pathwise, score = both_ways(log_gamma, a)
assert np.allclose([pathwise.mean, score.mean], polygamma(1, a)) and pathwise.variance < score.variance

# %% [markdown]
# ## Diagnose it
#
# A gamma variable can be drawn by rejection (Marsaglia and Tsang, 2000). With $d = a - 1/3$ and $c = 1 / \sqrt{9 d}$
# draw $\varepsilon \sim N(0, 1)$, put $z = d\, (1 + c\, \varepsilon)^3$, and accept it with a certain probability, 96%
# here. Someone writes the accepted $z$ as a function of the accepted $\varepsilon$, and differentiates it.
#
# > **Your turn.** Run `scg.testing.assert_unbiased(broken, reference=truth, rng=rng)`. Every $z$ has the right
# > distribution, and $dz/da$ is the derivative of the line above. What is wrong?


# %% tags=["exercise"]
def through_rejection(n, rng, a=1.2):  # n gradients of E ln z in a
    d, c = a - 1 / 3, 1 / np.sqrt(9 * (a - 1 / 3))
    e, v = rng.normal(size=2 * n), rng.random(2 * n)
    cube = np.maximum(1 + c * e, 1e-12) ** 3
    accepted = (1 + c * e > 0) & (np.log(v) < e**2 / 2 + d - d * cube + d * np.log(cube))
    e, cube = e[accepted][:n], cube[accepted][:n]
    slope = cube - 1.5 * c * e * (1 + c * e) ** 2  # dz/da, with dc/da = -c / (2 d)
    return slope / (d * cube)


broken, truth = scg.bridge.Samples(through_rejection, evaluations=1), polygamma(1, 1.2)
print("exact gradient", truth)

# %% [markdown] tags=["answer"]
# The noise that was *accepted* is not free of $a$: the probability of accepting depends on $a$, so the density of the
# accepted $\varepsilon$ does, too. Its score is missing, as in the first chapter. The missing term is small where
# nearly everything is accepted (Naesseth et al., 2017, keep it), and it is no rounding error: here the mean is 10% too
# large. Implicit differentiation needs no such term, since $u = F(z, a)$ is uniform whatever $a$ is.

# %% tags=["answer"]
verdict = scg.testing.judge(broken, reference=truth, rng=rng)
print(verdict.status)
print(beside("its mean", truth, through_rejection(REPLICATES, rng)))
assert verdict.status == "biased"
