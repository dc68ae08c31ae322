"""Hypothesis draws the same examples in every ordinary run; HYPOTHESIS_PROFILE=search draws new ones."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ordinary", derandomize=True, deadline=None, print_blob=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", derandomize=False, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))
