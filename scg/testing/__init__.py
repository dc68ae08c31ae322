"""Checks for what is built on scg: derivatives against independent numerics."""

from scg.testing.gradients import check_gradient
