"""Calls of drawn programs are counted: most of them must be answered by plans."""

import pytest

from tests.support.compiled import CALLS


@pytest.fixture(autouse=True, scope="module")
def plans_ran():
    CALLS.clear()
    yield
    assert CALLS["planned"] >= 0.9 * CALLS.total(), CALLS
