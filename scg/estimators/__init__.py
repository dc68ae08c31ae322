"""Gradient estimators: one file, one rule, its claims."""

from scg.estimators.reparameterized import Reparameterized

__all__ = ["Reparameterized"]
