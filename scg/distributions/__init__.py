"""Distributions: frozen value objects whose capabilities are types."""

from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical, OneHotCategorical
from scg.distributions.normal import Normal
from scg.distributions.base import kl_divergence
from scg.distributions.subset import UniformSubset
from scg.distributions.uniform import Uniform

__all__ = ["Bernoulli", "Categorical", "Normal", "OneHotCategorical", "Uniform", "UniformSubset", "kl_divergence"]
