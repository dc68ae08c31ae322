"""Does assert_unbiased catch what is wrong, and let pass what is right? Every saboteur, and every unbiased estimator of
the package, over many seeds.

``saboteurs``: each of ``scg.testing.saboteurs()`` must be rejected exactly, and by replicates at every seed, with the
test's own defaults. ``correct``: every estimator that ``scg.estimators`` exports with ``unbiased = True``, every
baseline, and the objectives' gradients, by replicates against the exact gradient; none may be called biased. There a
bias of --detect times the gradient's scale is sought with probability --power, coarser than the defaults, so that
thousands of verdicts take minutes; the rate of false alarms --alpha is the default's. Exits with status 1 where
anything is called what it is not.
"""

import argparse
import functools
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import scg
from benchmarks.timing import RESULTS, save, versions
from scg import distributions as dist
from scg.stochastic.estimator import Estimator
from scg.testing import judge, saboteurs

TWO, THREE = np.array([0.4, -0.6]), np.array([0.5, -0.3, 0.1])


def coins(t, rng, estimator):
    """Two coins, with costs apart and together."""
    b = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, name="z")
    return np.mean((b + 0.5) ** 2 * np.array([1.0, 2.0])) + b[0] * b[1] * t[1]


def pairs(t, rng, estimator):
    """Four draws of each of two coins: a sample axis."""
    b = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, shape=(4,), name="z")
    return np.mean((b + 0.5) ** 2 * np.array([1.0, 2.0]))


def nested(t, rng, estimator):
    """A coin whose outcome sets the odds of the next."""
    x = scg.sample(dist.Bernoulli(logits=t[0]), estimator, rng=rng, name="x")
    y = scg.sample(dist.Bernoulli(logits=t[1] + 2 * x), estimator, rng=rng, name="y")
    return (x - 0.2) ** 2 + 2 * y + x * y


def faces(t, rng, estimator):
    """Two throws of three faces, whose product counts."""
    z = scg.sample(dist.OneHotCategorical(logits=t), estimator, rng=rng, shape=(2,), name="z")
    worth = np.sum(z * np.array([1.0, 3.0, 0.5]), axis=-1)
    return np.sum(worth) + worth[0] * worth[1]


def orders(t, rng, estimator):
    """What three things are worth, in the order of a race."""
    p = scg.sample(dist.OneHotPlackettLuce(t), estimator, rng=rng, name="z")
    return np.sum((p @ np.array([1.0, 3.0, 0.5]) * np.array([1.0, 0.6, 0.2])) ** 2)


def points(t, rng, estimator):
    """A normal draw in a wave."""
    return np.cos(scg.sample(dist.Normal(t[0], np.exp(t[1])), estimator, rng=rng, name="z") * 0.8) * (1 + t[0])


def intervals(t, rng, estimator):
    """A uniform draw, the ends of which move."""
    return scg.sample(dist.Uniform(t[0], 2.0 + t[1]), estimator, rng=rng, name="z") ** 2


def bound(t, rng, estimator):
    """Two draws' bound on log p; here the estimator is one of the gradients of ``scg.objectives``."""
    kind, gradient = estimator.split(": ")
    make = scg.objectives.iwae if kind == "iwae" else scg.objectives.elbo
    return make(
        lambda z: dist.Normal(0.0, 1.0).log_prob(z), guide=dist.Normal(t, 1.2), samples=2, rng=rng, gradient=gradient
    )


def learned():
    """A learned baseline at a constant input."""
    return scg.Learned(
        lambda phi, x: phi["level"] * x, {"level": np.zeros(2)}, functools.partial(scg.optim.Adam, learning_rate=0.05)
    )(np.ones(2))


score, several = scg.ScoreFunction, functools.partial(scg.ScoreFunction, samples=3)
# of each name that scg.estimators exports: (what it is called here, how it is made, its graph, the parameters)
CORRECT = {
    "ScoreFunction": [
        ("score function, coins", score, coins, TWO),
        ("score function, nested", score, nested, TWO),
        ("score function, faces", score, faces, THREE),
        ("score function, points", score, points, TWO),
        ("score function, 3 samples", several, coins, TWO),
    ],
    "Constant": [("  constant baseline", lambda: score(baseline=scg.Constant(1.5)), coins, TWO)],
    "LeaveOneOut": [
        ("  leave-one-out, 3 samples", lambda: several(baseline=scg.LeaveOneOut()), coins, TWO),
        ("  leave-one-out, nested", lambda: several(baseline=scg.LeaveOneOut()), nested, TWO),
        ("  leave-one-out, sample axis", lambda: score(baseline=scg.LeaveOneOut()), pairs, TWO),
    ],
    "MovingAverage": [("  moving average", lambda: score(baseline=scg.MovingAverage(0.9)), coins, TWO)],
    "Optimal": [
        ("  optimal, earlier costs", lambda: score(baseline=scg.Optimal(0.9)), coins, TWO),
        ("  optimal, 3 samples", lambda: several(baseline=scg.Optimal()), coins, TWO),
    ],
    "Learned": [("  learned", lambda: score(baseline=learned()), coins, TWO)],
    "ARM": [("ARM", scg.ARM, coins, TWO), ("ARM, nested", scg.ARM, nested, TWO)],
    "DisARM": [
        ("DisARM", scg.DisARM, coins, TWO),
        ("DisARM, nested", scg.DisARM, nested, TWO),
        ("DisARM, faces", scg.DisARM, faces, THREE),
    ],
    "CoupledPairs": [
        ("coupled pairs, 3 samples", lambda: scg.CoupledPairs(3), coins, TWO),
        ("coupled pairs, faces", lambda: scg.CoupledPairs(3), faces, THREE),
    ],
    "DoubleControlVariate": [("double control variates", scg.DoubleControlVariate, coins, TWO)],
    "RODEO": [("Stein operator", scg.RODEO, coins, TWO)],
    "StochasticDerivative": [("stochastic derivative", scg.StochasticDerivative, coins, TWO)],
    "REBAR": [
        ("REBAR", lambda: scg.REBAR(temperature=0.5), coins, TWO),
        ("REBAR, orders", lambda: scg.REBAR(temperature=1.0), orders, THREE),
    ],
    "RELAX": [("RELAX", lambda: scg.RELAX(lambda phi, z: phi * np.tanh(z), np.array(0.5)), coins, TWO)],
    "MuProp": [("MuProp", scg.MuProp, coins, TWO)],
    "Enumerate": [
        ("enumerate", scg.Enumerate, coins, TWO),
        ("enumerate one, draw one", lambda: scg.Enumerate(1), faces, THREE),
    ],
    "Marginalize": [("summed out", scg.Marginalize, coins, TWO)],
    "UnorderedSet": [("unordered set of 2", lambda: scg.UnorderedSet(2), faces, THREE)],
    "MeasureValued": [("measure-valued", scg.MeasureValued, points, TWO)],
    "Reparameterized": [
        ("pathwise", scg.Reparameterized, points, TWO),
        ("pathwise, moving ends", scg.Reparameterized, intervals, TWO),
    ],
    "objectives": [
        (gradient, functools.partial(str, gradient), bound, np.array(0.3))
        for gradient in (
            "elbo: sticking the landing",
            "elbo: VIMCO",
            "iwae: pathwise",
            "iwae: doubly reparameterized",
            "iwae: score function",
            "iwae: VIMCO",
        )
    ],
}
ROWS = [row for rows in CORRECT.values() for row in rows]
PART = 50  # seeds that one task of a worker takes


def unbiased_exports():
    """The names in scg.estimators of unbiased estimators and of baselines."""
    classes = {name: getattr(scg.estimators, name) for name in scg.estimators.__all__}
    return {
        n
        for n, c in classes.items()
        if issubclass(c, Estimator) and c.unbiased or issubclass(c, scg.Baseline) and c is not scg.Baseline
    }


@functools.cache
def subject(kind, index):
    """(graph, exact gradient), made once in each process. What learns has learned from fifty gradients."""
    if kind == "saboteurs":
        graph = saboteurs()[index].graph()
        return graph, scg.exact.gradient(graph)
    _, make, cost, theta = ROWS[index]
    graph = scg.trace(cost, theta, rng=np.random.default_rng(0), estimator=make())
    for seed in range(50):
        graph.gradients(rng=np.random.default_rng(seed))
    return graph, scg.exact.gradient(graph)


def verdicts(task):
    """(seconds, status and draws for each seed) of one task."""
    kind, index, seeds, options = task
    start = time.perf_counter()
    graph, truth = subject(kind, index)
    found = [judge(graph, rng=np.random.default_rng(seed), reference=truth, **options) for seed in seeds]
    return time.perf_counter() - start, [(v.status, v.draws) for v in found]


def exactly(index):
    """The exact verdict on a saboteur, and its bias as a fraction of the largest element of the gradient."""
    verdict = judge(saboteurs()[index].graph(), rng=np.random.default_rng(0))
    return verdict.status, float(np.max(np.abs(verdict.bias)) / np.max(np.abs(verdict.reference)))


def collected(pool, kind, names, seeds, options):
    """One record a name, printed as soon as it is there: counts of verdicts, draws, seconds."""
    parts = [range(s, min(s + PART, seeds)) for s in range(0, seeds, PART)]
    exact = pool.imap(exactly, range(len(names))) if kind == "saboteurs" else None
    results = pool.imap(verdicts, [(kind, i, part, options) for i in range(len(names)) for part in parts])
    width = max(map(len, names))
    print(
        f"{'':{width}}{'  exact verdict    bias' if exact else ''}  biased  unbiased  open  median draws    most "
        " seconds"
    )
    records = {}
    for name in names:
        seconds, rows = zip(*[next(results) for _ in parts], strict=True)
        statuses, draws = zip(*[row for part in rows for row in part], strict=True)
        count, median = Counter(statuses), statistics.median(draws)
        records[name.strip()] = record = {status: count[status] for status in ("biased", "unbiased", "inconclusive")}
        record |= {"median draws": median, "most draws": max(draws), "seconds": sum(seconds)}
        mark = ""
        if exact:
            status, bias = next(exact)
            record |= {"exact": status, "exact relative bias": bias}
            mark = f"  {status:>13}  {bias:6.3f}"
        counts = f"{count['biased']:6}  {count['unbiased']:8}  {count['inconclusive']:4}"
        print(f"{name:{width}}{mark}  {counts}  {median:12.0f}  {max(draws):6}  {sum(seconds):7.1f}", flush=True)
    return records


def failures(found, seeds):
    """What was called what it is not."""
    wrong = [name for name, r in found["saboteurs"].items() if r["biased"] < seeds or r["exact"] != "biased"]
    return wrong + [name for name, r in found["correct"].items() if r["biased"]]


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unbiased", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="seeds for each saboteur (default 20)")
    parser.add_argument(
        "--long-seeds", type=int, default=1000, metavar="N", help="seeds for each correct estimator (default 1000)"
    )
    parser.add_argument(
        "--alpha",
        type=float,
        default=1e-9,
        metavar="P",
        help="false alarms allowed for correct estimators (default 1e-9)",
    )
    parser.add_argument(
        "--detect",
        type=float,
        default=0.5,
        metavar="D",
        help="bias sought in correct estimators, of the gradient's scale (default 0.5)",
    )
    parser.add_argument(
        "--power",
        type=float,
        default=0.999,
        metavar="P",
        help="probability with which it would be found (default 0.999)",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default 2)")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS / "unbiased.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/unbiased.json)",
    )
    options = parser.parse_args(arguments)
    if min(options.seeds, options.long_seeds, options.workers) < 1:
        parser.error("--seeds, --long-seeds and --workers must be at least 1")
    missing = unbiased_exports() ^ (set(CORRECT) - {"objectives"})
    if missing:
        parser.error(f"scg.estimators and the table in this file differ in {', '.join(sorted(missing))}")
    coarse = {"alpha": options.alpha, "detect": options.detect, "power": options.power}
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        print(f"saboteurs, {options.seeds} seeds each, with the defaults of assert_unbiased")
        wrong = collected(pool, "saboteurs", [s.name for s in saboteurs()], options.seeds, {})
        print(
            f"\ncorrect estimators, {options.long_seeds} seeds each, alpha {options.alpha:g}, detect"
            f" {options.detect:g}, power {options.power:g}"
        )
        right = collected(pool, "correct", [row[0] for row in ROWS], options.long_seeds, coarse)
    found = {"saboteurs": wrong, "correct": right}
    rejected, alarms, passed = (
        sum(r[s] for r in part.values()) for part, s in ((wrong, "biased"), (right, "biased"), (right, "unbiased"))
    )
    print(f'\n{len(wrong)} saboteurs: {rejected} of {len(wrong) * options.seeds} verdicts are "biased"')
    print(
        f'{len(right)} correct estimators: {alarms} of {len(right) * options.long_seeds} verdicts are "biased",'
        f' {passed} are "unbiased"'
    )
    seconds = time.perf_counter() - start
    save(
        {
            "versions": versions("numpy", "scipy"),
            "seeds": options.seeds,
            "long seeds": options.long_seeds,
            **coarse,
            "seconds": seconds,
            **found,
        },
        options.out,
    )
    print(f"{seconds:.0f} s with {options.workers} workers; written to {options.out}")
    bad = failures(found, options.seeds)
    if bad:
        print(f"not as it should be: {', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
