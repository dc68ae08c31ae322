"""Distributions: frozen value objects whose capabilities are types."""

from scg.distributions.bernoulli import Bernoulli
from scg.distributions.normal import Normal
from scg.distributions.base import kl_divergence

__all__ = ["Bernoulli", "Normal", "kl_divergence"]
