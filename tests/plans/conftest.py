"""Calls of drawn programs are counted: most of them must be answered by plans."""

import gc

import pytest

from tests.support.compiled import CALLS


@pytest.fixture(autouse=True, scope="module")
def few_objects():
    """To compile looks for the functions among all objects: what other tests left is none of them."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def plans_ran():
    CALLS.clear()
    yield
    assert CALLS["planned"] >= 0.9 * CALLS.total(), CALLS
