"""Distributions: frozen value objects whose capabilities are types."""

from scg.distributions.bernoulli import Bernoulli
from scg.distributions.normal import Normal
from scg.distributions.base import kl_divergence
from scg.distributions.subset import UniformSubset
from scg.distributions.uniform import Uniform

__all__ = ["Bernoulli", "Normal", "Uniform", "UniformSubset", "kl_divergence"]
