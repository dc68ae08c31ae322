"""Distributions: frozen value objects whose capabilities are types."""

from scg.distributions.bernoulli import Bernoulli
from scg.distributions.normal import Normal
from scg.distributions.base import kl_divergence
from scg.distributions.subset import UniformSubset

__all__ = ["Bernoulli", "Normal", "UniformSubset", "kl_divergence"]
