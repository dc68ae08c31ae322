"""Distributions: frozen value objects whose capabilities are types.

On the real line: `Normal`, `Laplace`, `Logistic`, `Gumbel`, `Cauchy`, `StudentT`; positive: `LogNormal`,
`Exponential`, `Gamma`, `InverseGamma`, `Chi2`, `Erlang`, `Weibull`, `Gompertz`, `Pareto`, `HalfNormal`; on an
interval or circle: `Uniform`, `Beta`, `Kumaraswamy`, `LogitNormal`, `TruncatedNormal`, `VonMises`,
`RelaxedBernoulli`; vectors: `MultivariateNormal`, `Dirichlet`, `Concrete`; discrete: `Bernoulli`, `Categorical`,
`OneHotCategorical`, `Binomial`, `Geometric`, `Poisson`, `NegativeBinomial`, `Multinomial`, `Ordered`,
`UniformSubset`, `SubsetOfSize`, `PlackettLuce`, `OneHotPlackettLuce`; made of
others: `Independent`, `Mixture`, `Transformed`; limits: `Delta`, `Flat`.

Parameters are NumPy arrays, numbers or nodes and broadcast; a sample has the shape `shape + batch_shape + event_shape`.
`log_prob` is differentiable in the value and in the parameters; outside the support it is -inf, with gradient zero.
Parameters are checked when a distribution is made. `dist.kl_divergence(p, q)` gives closed forms where they are
known.
"""

from typing import TYPE_CHECKING

from scg.core.advice import absent
from scg.distributions.base import Discrete, Distribution, FiniteSupport, FixedSupport, Reparameterizable, kl_divergence
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.beta import Beta, Kumaraswamy
from scg.distributions.bijections import Affine, Bijection, Exp, Power, Sigmoid, Softplus, Tanh, TrilAffine
from scg.distributions.categorical import Categorical, OneHotCategorical
from scg.distributions.counts import Binomial, Geometric, NegativeBinomial, Poisson
from scg.distributions.degenerate import Delta, Flat
from scg.distributions.fixed_size import SubsetOfSize
from scg.distributions.gamma import Chi2, Gamma, InverseGamma
from scg.distributions.location_scale import Cauchy, Gumbel, Laplace, Logistic, StudentT
from scg.distributions.mixture import Mixture
from scg.distributions.multinomial import Multinomial
from scg.distributions.multivariate import Dirichlet, MultivariateNormal
from scg.distributions.normal import Normal
from scg.distributions.normal_transforms import HalfNormal, LogitNormal, LogNormal
from scg.distributions.ordered import Ordered
from scg.distributions.orders import OneHotPlackettLuce, PlackettLuce
from scg.distributions.positive import Erlang, Exponential, Gompertz, Pareto, Weibull
from scg.distributions.relaxed import Concrete, RelaxedBernoulli
from scg.distributions.subset import UniformSubset
from scg.distributions.transformed import Independent, Transformed
from scg.distributions.truncated import TruncatedNormal
from scg.distributions.uniform import Uniform
from scg.distributions.vonmises import VonMises

__all__ = [
    "Affine",
    "Bernoulli",
    "Beta",
    "Bijection",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "Concrete",
    "Delta",
    "Dirichlet",
    "Discrete",
    "Distribution",
    "Erlang",
    "Exp",
    "Exponential",
    "FiniteSupport",
    "FixedSupport",
    "Flat",
    "Gamma",
    "Geometric",
    "Gompertz",
    "Gumbel",
    "HalfNormal",
    "Independent",
    "InverseGamma",
    "Kumaraswamy",
    "Laplace",
    "LogNormal",
    "Logistic",
    "LogitNormal",
    "Mixture",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotPlackettLuce",
    "Ordered",
    "Pareto",
    "PlackettLuce",
    "Poisson",
    "Power",
    "RelaxedBernoulli",
    "Reparameterizable",
    "Sigmoid",
    "Softplus",
    "StudentT",
    "SubsetOfSize",
    "Tanh",
    "Transformed",
    "TrilAffine",
    "TruncatedNormal",
    "Uniform",
    "UniformSubset",
    "VonMises",
    "Weibull",
    "kl_divergence",
]

if not TYPE_CHECKING:  # for which a name that is not there is an error
    __getattr__ = absent(
        __name__,
        {
            "Gaussian": "Normal(loc, scale)",
            **dict.fromkeys(
                ("NormalDiag", "MultivariateNormalDiag", "DiagGaussian"),
                "Independent(Normal(loc, scale), 1), of vectors",
            ),
            **dict.fromkeys(("MultivariateNormalTriL", "MVN"), "MultivariateNormal(loc, scale_tril)"),
            **dict.fromkeys(("MixtureSameFamily", "MixtureGeneral", "GaussianMixture"), "Mixture(component, weights)"),
            **dict.fromkeys(("RelaxedOneHotCategorical", "GumbelSoftmax"), "Concrete(temperature, logits=...)"),
            **dict.fromkeys(("TransformedDistribution", "Pushforward"), "Transformed(base, bijection)"),
            **dict.fromkeys(("Deterministic", "Dirac"), "Delta(loc)"),
            **dict.fromkeys(("kl", "kl_div"), "kl_divergence(p, q)"),
        },
    )
