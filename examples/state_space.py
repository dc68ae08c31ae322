"""A particle filter on the flow of the Nile: the level of a river, filtered, smoothed, and learned.

The annual volume of the Nile at Aswan from 1871 to 1970, in 10^8 cubic metres (Cobb, 1978; Durbin and Koopman, 2012).
It fell about 1899, when a dam was begun. The model is a level that wanders:

    z_0 ~ N(1000, 500^2)    z_t = z_{t-1} + w_t    x_t = z_t + v_t,  v_t ~ N(0, sigma_v^2)

with steps w_t ~ N(0, sigma_w^2), for which Kalman's filter gives the exact likelihood and everything here can be
checked; or with --steps student, where w_t / sigma_w has Student's t distribution with two degrees of freedom: mostly
small, at times large, as a dam. There is no exact filter then, and the particle filter does not mind.

Both scales are learned by raising log Z-hat of ``scg.objectives.smc``, whose gradient knows of the resampling by the
correction of Scibior and Wood (2021); --correction none shows what is learned without it.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

import scg
from examples.options import Help, directory, natural, positive
from scg import distributions as dist
from scg import files, objectives, optim
from scg.objectives.sequential import CORRECTIONS

TAKES = "half a minute"
FIRST = 1871
NILE = np.array(
    """1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100 1210 1150 1250
    1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824 702 1120 1100 832 764 821 768
    845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822 1010 771 676 649 846 812 742 801 1040 860 874 848
    890 744 749 838 1050 918 986 797 923 975 815 1020 906 901 1170 912 746 919 718 714 740""".split(),
    float,
)
PRIOR = dist.Normal(1000.0, 500.0)
FREEDOM = 2.0


def moves(kind: str, scale: Any, level: Any) -> Any:
    """The distribution of the next level."""
    return dist.StudentT(FREEDOM, level, scale) if kind == "student" else dist.Normal(level, scale)


def run(log_scales: Any, rng: np.random.Generator, kind: str, particles: int, correction: str) -> Any:
    """The filter at the logarithms of sigma_w and sigma_v."""
    scales = np.exp(log_scales)
    step = objectives.state_space(
        PRIOR,
        lambda t, z: moves(kind, scales[0], z),
        lambda t, z: dist.Normal(z, scales[1]).log_prob(NILE[t]),
        particles=particles,
    )
    return objectives.smc(step, len(NILE), rng=rng, correction=correction)


def kalman(log_scales: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The exact log-likelihood of Gaussian steps, and means and variances of the level given the past."""
    q, r = np.exp(2 * np.asarray(log_scales))
    mean, variance, total, means, variances = 1000.0, 500.0**2, 0.0, [], []
    for t, x in enumerate(NILE):
        variance += q if t else 0.0
        total += float(dist.Normal(mean, np.sqrt(variance + r)).log_prob(x))
        gain = variance / (variance + r)
        mean, variance = mean + gain * (x - mean), (1 - gain) * variance
        means.append(mean)
        variances.append(variance)
    return total, np.array(means), np.array(variances)


def smoother(log_scales: np.ndarray) -> np.ndarray:
    """The means of the level given all years (Rauch, Tung and Striebel, 1965)."""
    q = np.exp(2 * log_scales[0])
    _, means, variances = kalman(log_scales)
    found = means.copy()
    for t in range(len(NILE) - 2, -1, -1):
        found[t] += variances[t] / (variances[t] + q) * (found[t + 1] - means[t])
    return found


def learn(options: argparse.Namespace, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """The log-scales, and the estimated log-likelihood after each update; the mean of the last half of them is kept."""

    def loss(log_scales: Any, rng: np.random.Generator) -> Any:
        return -run(log_scales, rng, options.steps, options.particles, options.correction).log_evidence

    compiled = scg.compile(scg.value_and_grad(loss))
    log_scales = np.log([100.0, 100.0])
    optimizer = optim.Adam(log_scales, learning_rate=options.rate)
    curve, path = [], []
    for update in range(options.updates):
        value, gradient = compiled(log_scales, rng=rng)
        optimizer.step(gradient)
        curve.append(-float(value))
        path.append(log_scales.copy())
        if (update + 1) % max(1, options.updates // 5) == 0:
            w, v = np.exp(log_scales)
            print(
                f"{update + 1:4d} updates  log Z-hat {curve[-1]:8.2f}  sigma_w {w:5.1f}  sigma_v {v:5.1f}", flush=True
            )
    return np.mean(path[len(path) // 2 :], axis=0), curve


def picture(out: Path, filtered: np.ndarray, paths: np.ndarray, exact: np.ndarray | None, title: str) -> None:
    """The series with the level given the past, and given everything."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure((10, 6), layout="constrained")
    years = FIRST + np.arange(len(NILE))
    for axes, name in zip(figure.subplots(2, 1, sharex=True), ("filtered", "smoothed"), strict=True):
        axes.plot(years, NILE, ".", color="0.6", label="annual volume")
        if name == "filtered":
            axes.plot(years, filtered, label="level given the years before and this one")
        else:
            low, middle, high = np.quantile(paths, [0.05, 0.5, 0.95], axis=1)
            axes.fill_between(years, low, high, alpha=0.3, label="90% of the paths")
            axes.plot(years, middle, label="level given all years (median of paths)")
            if exact is not None:
                axes.plot(years, exact, "k:", label="exact mean")
        axes.axvline(1899, color="0.8", zorder=0)
        axes.set_ylabel("volume (10⁸ m³ a year)")
        axes.set_title(f"{title}: {name}")
        axes.legend(fontsize="small")
    axes.set_xlabel("year (line: 1899, the dam at Aswan is begun)")
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=120)
    files.write(out / "level.png", pixels.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Learn, filter, smooth and draw; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.state_space", description=__doc__, formatter_class=Help)
    parser.add_argument("--steps", choices=("normal", "student"), default="normal", help="how the level moves")
    parser.add_argument("--correction", choices=CORRECTIONS, default="stop gradient", help="of the gradient, see smc")
    parser.add_argument(
        "--particles", metavar="K", type=natural, default=300, help="in learning; ten times as many at the end"
    )
    parser.add_argument("--updates", metavar="N", type=natural, default=400, help="of the two scales")
    parser.add_argument("--rate", metavar="R", type=positive, default=0.05, help="the learning rate of Adam")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all draws")
    parser.add_argument("--out", metavar="DIR", type=directory, default="runs/state_space", help="where the results go")
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"argument --seed: expected at least 0, got {options.seed}")
    if options.correction == "score function":
        parser.error("argument --correction: a score function needs multinomial resampling; see scg.objectives.smc")
    out, rng = Path(options.out), np.random.default_rng(options.seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        log_scales, curve = learn(options, rng)
        final = run(log_scales, rng, options.steps, 10 * options.particles, "none")
        w, v = np.exp(log_scales)
        estimate = float(final.log_evidence.value)
        print(f"learned: sigma_w {w:.1f}, sigma_v {v:.1f}, log Z-hat {estimate:.2f}")
        result: dict[str, Any] = {"sigma_w": w, "sigma_v": v, "log_evidence": estimate, "curve": curve}
        exact = None
        if options.steps == "normal":
            best = minimize(lambda x: -kalman(x)[0], np.log([40.0, 120.0]), method="Nelder-Mead")
            result |= {"kalman": kalman(log_scales)[0], "best": -best.fun, "best_scales": np.exp(best.x).tolist()}
            print(
                f"exact: {result['kalman']:.2f} there, and {-best.fun:.2f} at the most likely {np.exp(best.x).round(1)}"
            )
            exact = smoother(log_scales)
        filtered = final.filtered().value
        paths = final.smoothed(lambda t, z: moves(options.steps, w, z), paths=400, rng=rng)
        title = f"{options.steps} steps, {10 * options.particles} particles, seed {options.seed}"
        picture(out, filtered, paths, exact, title)
        files.write(out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"picture: {out}/level.png, numbers: {out}/result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
