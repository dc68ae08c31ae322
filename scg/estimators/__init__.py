"""Gradient estimators: one file, one rule, its claims."""

from scg.estimators.enumerate import Enumerate
from scg.estimators.reparameterized import Reparameterized
from scg.estimators.score import Baseline, Constant, LeaveOneOut, ScoreFunction

__all__ = ["Baseline", "Constant", "Enumerate", "LeaveOneOut", "Reparameterized", "ScoreFunction"]
