"""Checks for what is built on scg: derivatives against independent numerics, distributions against themselves and others."""

from scg.testing.distributions import Checked, check_distribution
from scg.testing.gradients import check_gradient
from scg.testing.unbiased import BiasReport, Verdict, assert_bias, assert_unbiased, judge
