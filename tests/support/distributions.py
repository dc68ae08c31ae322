"""One distribution or more of every family, and values that no method takes."""

import numpy as np

import scg
from scg import distributions as dist

A = np.array
ALL = [
    dist.Normal(0.3, A([1.0, 2.0])), dist.LogNormal(0.3, 0.7), dist.LogitNormal(-0.3, 1.2), dist.HalfNormal(1.5), dist.Laplace(0.2, 1.1), dist.Logistic(0.2, 0.6),
    dist.Gumbel(0.1, 1.3), dist.Cauchy(0.1, 0.4), dist.StudentT(3.0, 0.1, 1.2), dist.Exponential(1.3), dist.Gompertz(0.4, 1.1), dist.Weibull(1.2, 1.7),
    dist.Erlang(3, 1.2), dist.Pareto(1.2, 2.5), dist.Gamma(2.3, 1.2), dist.Chi2(3.3), dist.InverseGamma(2.3, 1.1), dist.Beta(1.3, 2.1), dist.Kumaraswamy(1.3, 2.1),
    dist.TruncatedNormal(0.2, 1.1, -1.0, 2.0), dist.TruncatedNormal(0.2, 1.1, -1.0, np.inf), dist.VonMises(0.4, 1.3), dist.Uniform(-0.5, 1.5),
    dist.RelaxedBernoulli(0.7, probs=0.3), dist.Delta(1.0),
    dist.Bernoulli(probs=0.3), dist.Bernoulli(logits=A([0.3, -0.2])), dist.Binomial(5.0, probs=0.3), dist.Geometric(probs=0.3), dist.Poisson(1.7),
    dist.NegativeBinomial(2.5, probs=0.4), dist.Categorical(probs=A([0.2, 0.5, 0.3])), dist.Categorical(logits=A([0.2, -0.5])),
    dist.OneHotCategorical(logits=A([0.2, -0.5])), dist.Multinomial(3, probs=A([0.2, 0.8])), dist.UniformSubset(4, 2),
    dist.Dirichlet(A([1.2, 0.7, 2.0])), dist.MultivariateNormal(np.zeros(2), A([[1.0, 0.0], [0.4, 0.8]])), dist.Concrete(0.7, logits=A([0.2, -0.5, 0.0])),
    dist.Independent(dist.Normal(A([0.3, 0.1]), 1.0), 1), dist.Transformed(dist.Normal(0.3, 1.2), dist.Tanh()),
    dist.Transformed(dist.Gamma(1.3, 1.2), dist.Affine(0.4, -1.2)), dist.Mixture(dist.Normal(A([-1.0, 1.0]), 0.5), weights=A([0.3, 0.7])),
    dist.Mixture(dist.Poisson(A([1.0, 5.0])), weights=A([0.3, 0.7])), dist.Flat(()),
]  # fmt: skip
BAD_VALUES = [
    None,
    "a",
    b"a",
    1j,
    A(["a"]),
    A([None]),
    object(),
    {"a": 1},
    [0.5, "a"],
    [[1.0], [1.0, 2.0]],
    dist.Normal,
    dist.Normal(0.0, 1.0),
    scg,
    np.datetime64("2020-01-01"),
]
