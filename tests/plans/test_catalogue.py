"""Law 7 over the catalogue: a compiled value and gradient is the plain one, at points that the recorded run has not
seen."""

import itertools
import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest

import scg
from scg.core.node import Node
from scg.core.tree import leaves
from scg.errors import ScgError
from tests.support.cases import all_cases
from tests.support.compiled import agree
from tests.support.drawn import first

EPS = float(np.finfo(float).eps)
DEPENDENT = {"np.piecewise"}
"""What has shapes inside that depend on values: it is computed plainly where they are other ones."""
BY_MODULE = defaultdict(list)
for _case in all_cases():
    BY_MODULE[_case.name.rpartition(".")[0]].append(_case)
SHAPES = {1: [(3,)], 2: [(2, 3), (3,)], 3: [(2, 3), (3,), (2, 1)], 4: [(2, 3), (3,), (2, 1), (1, 3)]}


def _points(case, rng, number):
    free = [d for d in case.domains if d.shape is None]
    shapes = iter(SHAPES.get(len(free), [(2, 3)] * len(free)))
    shapes = [next(shapes) if d.shape is None else d.shape for d in case.domains]
    return [[rng.uniform(d.low, d.high, s) for d, s in zip(case.domains, shapes, strict=True)] for _ in range(number)]


def _cost(case, weights):
    def cost(*operands):
        made = [d.make(x) if d.make else x for d, x in zip(case.domains, operands, strict=True)]
        total, count = 0.0, iter(weights)
        for _, y in leaves(case.fn(*made)):
            if y.dtype.kind in "fc":
                y = np.real(y * next(count)) if y.dtype.kind == "c" else y * next(count)
            total = total + np.sum(y)
        return total + 0 * sum(np.sum(x) for x in operands)

    return cost


@pytest.mark.parametrize("most", first(1, [2, 100]))
@pytest.mark.parametrize("module", sorted(BY_MODULE))
def test_the_catalogue(module, most):
    """At most so many cases of each name."""
    gave_up, seen = [], Counter()
    for case in BY_MODULE[module]:
        seen.update([case.name])
        if seen[case.name] > most:
            continue
        rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        points = _points(case, rng, 3)
        plain = scg.value_and_grad(_cost(case, rng.uniform(0.5, 1.5, 50)), tuple(range(len(case.domains))))
        compiled = scg.compile(plain)
        try:
            expected = [plain(*point) for point in points]
        except (ScgError, TypeError, ValueError):
            continue
        for point, e in zip(points, expected, strict=True):
            agree(compiled(*point), e, f"{case.name}, operands of shape {[x.shape for x in point]}")
        if compiled.plainly:
            gave_up.append(case.name)
    assert set(gave_up) <= DEPENDENT


def test_every_module_has_cases():
    assert len(list(itertools.chain(*BY_MODULE.values()))) > 700
    assert Node
