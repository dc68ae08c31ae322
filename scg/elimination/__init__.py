"""Sums over all values of samples, one sample after the other: for exact truth, and for an estimator."""
