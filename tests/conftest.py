"""Hypothesis draws the same examples in every ordinary run; HYPOTHESIS_PROFILE=search draws new ones."""

import os

from hypothesis import HealthCheck, Phase, settings

COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}
settings.register_profile("ordinary", derandomize=True, database=None, **COMMON)
settings.register_profile("search", derandomize=False, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))
