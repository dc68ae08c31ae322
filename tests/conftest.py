"""An ordinary run draws a fifth of the examples of each test, the same ones every time; ``-m long`` and ``-m ""``
draw all of them, and with HYPOTHESIS_PROFILE=search they are new ones. Ctrl-C reaches what a test starts."""

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings

pytest.register_assert_rewrite("tests.support")

FAST = "fast and not slow and not long"
COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}
settings.register_profile("ordinary", derandomize=True, database=None, max_examples=20, **COMMON)
settings.register_profile("long", derandomize=True, database=None, max_examples=100, **COMMON)
settings.register_profile("search", derandomize=False, max_examples=100, **COMMON)

# a shell's background jobs hand that on, and some tests send their children Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """``-m "not long"``, as by default, and ``-m fast`` are ordinary runs; the fast part has no slow tests of files
    that are fast, and no long cases of fast tests."""
    if config.option.markexpr == "fast":
        config.option.markexpr = FAST
    ordinary = config.option.markexpr in ("not long", FAST)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary" if ordinary else "long"))


def pytest_collection_finish():
    """Ten thousand collected tests are millions of objects, which gc.collect() in a test need not go through."""
    gc.freeze()
