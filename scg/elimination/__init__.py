"""Sums over all values of discrete samples, one sample after the other: for exact truth, and for an estimator."""
