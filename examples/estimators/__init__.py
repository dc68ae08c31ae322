"""Gradient estimators of one's own, in NumPy, PyTorch and JAX, for ``python -m scg.testing.conformance``.

Each is a function of a problem that returns ``scg.bridge.Samples``: n draws of its gradient at once.

    python -m scg.testing.conformance examples.estimators.in_numpy:disarm
    python -m scg.testing.conformance examples.estimators.in_torch:leave_one_out
    python -m scg.testing.conformance examples.estimators.in_jax:pathwise
"""
