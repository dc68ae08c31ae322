"""Gradient estimators: one file, one rule, its claims."""

from scg.estimators.arm import ARM, DisARM
from scg.estimators.baselines import Baseline, Constant, Learned, LeaveOneOut, MovingAverage, Optimal
from scg.estimators.enumerate import Enumerate
from scg.estimators.measure import MeasureValued
from scg.estimators.muprop import MuProp
from scg.estimators.rebar import REBAR, RELAX
from scg.estimators.relaxed import GumbelSoftmax, ReinMax, StraightThrough
from scg.estimators.reparameterized import Reparameterized
from scg.estimators.score import ScoreFunction
from scg.estimators.sets import UnorderedSet

__all__ = [
    "ARM",
    "Baseline",
    "Constant",
    "DisARM",
    "Enumerate",
    "GumbelSoftmax",
    "Learned",
    "LeaveOneOut",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "Optimal",
    "REBAR",
    "RELAX",
    "ReinMax",
    "Reparameterized",
    "ScoreFunction",
    "StraightThrough",
    "UnorderedSet",
]
