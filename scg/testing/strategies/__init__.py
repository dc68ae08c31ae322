"""Strategies of Hypothesis that draw what laws are held against; they need ``pip install 'scg[test]'``, and nothing
else of scg does."""
