"""Strategies of Hypothesis that draw programs, graphs and parameters for property tests; they need ``pip install
'scg[test]'``, and nothing else of scg does."""
