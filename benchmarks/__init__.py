"""Timings of scg beside its peers. Nothing here is a test, and nothing in the package imports it."""
