"""The variance of gradient estimators where it has been published or can be computed: one file, one experiment.

An experiment is a module with five functions:

    points(quick)          what is measured, a list of JSON objects: each is a part of the run, in any order
    measure(point, rng)    the result at one of them, a JSON object
    tables(results)        name -> rows (dicts) from the list of (point, result): the CSV files
    figures(results)       name -> matplotlib figure
    report(results)        what is printed, in Markdown

Measured times stay out of the tables, so that a table depends on nothing but the seed; they are in the JSON and in the
report.
"""

EXPERIMENTS = ("gaussian", "costs", "coins", "walks", "orders", "problems", "bounds", "digits")
"""Names of the modules, in the order in which they are run."""
