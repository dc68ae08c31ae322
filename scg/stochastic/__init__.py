"""Stochastic nodes: how they are sampled, what depends on them, the surrogate loss, and the graph as data."""
