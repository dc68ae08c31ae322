"""The lecture as a book that runs: every formula beside code that is it, an exact number, an estimate and a check.

The chapters are plain Python files in this directory, in text and code cells (percent format). They are run cell by
cell; where all their assertions hold, one page is written that needs no network and no other file.
"""

TAKES = "half a minute"
