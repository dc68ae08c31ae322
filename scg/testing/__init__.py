"""Checks for what is built on scg: derivatives against independent numerics, distributions against themselves and
others, estimators against exact values or by tests of a stated error rate; and drawn programs and graphs to check it
on.

``programs``, ``graphs``, ``bindings`` and ``parameters_of`` are strategies of Hypothesis, which is imported when one of
them is asked for.
"""

import importlib
import importlib.util
from typing import Any

from scg.core.advice import absent
from scg.testing.bias import assert_bias
from scg.testing.distributions import Checked, check_distribution
from scg.testing.gradients import check_gradient
from scg.testing.named_problems import problems
from scg.testing.problem import Draw, Problem
from scg.testing.program import Program
from scg.testing.sabotage import Saboteur, saboteurs
from scg.testing.unbiased import assert_unbiased, judge
from scg.testing.verdicts import BiasReport, Verdict

# and the module of each
__all__ = [
    "BiasReport",
    "Checked",
    "Draw",
    "Problem",
    "Program",
    "Saboteur",
    "Verdict",
    "assert_bias",
    "assert_unbiased",
    "check_distribution",
    "check_gradient",
    "judge",
    "problems",
    "saboteurs",
]

_STRATEGIES = {"programs": "programs", "graphs": "graphs", "bindings": "bindings", "parameters_of": "parameters"}

_absent = absent(__name__, {"check_grads": "scg.testing.check_gradient(fn, x)"})


def __getattr__(name: str) -> Any:
    if name not in _STRATEGIES:
        return _absent(name)
    if importlib.util.find_spec("hypothesis") is None:
        raise ImportError(f"scg.testing.{name} draws with Hypothesis, which is not installed: pip install 'scg[test]'")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.strategies.{_STRATEGIES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *(_STRATEGIES if importlib.util.find_spec("hypothesis") else ())])
