"""What one operation costs, forward and backward: a chain of operations on ten numbers, beside raw NumPy and other
libraries.

Each quarter of the chain is y * 1.0001, tanh(y), y + x, y - 0.5; the cost is sum(y), and the gradient is taken with
respect to x. ``small`` is the gradient of a function of ten such operations, called from the outside: what a call of
``value_and_grad`` costs. ``long`` is one chain of a million operations, in a process of its own for each library, with
its peak resident size.
"""

import os

for _pool in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")  # before NumPy is imported: ten numbers keep no second core busy

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import RESULTS, interleaved, medians, peak_bytes, save, table, versions

Gradient = Callable[[np.ndarray, int], np.ndarray]
PACKAGES = {
    "scg": "numpy",
    "PyTorch": "torch",
    "autograd": "autograd",
    "MyGrad": "mygrad",
    "MyGrad, unguarded": "mygrad",
}


def links(x: Any, n: int, tanh: Callable[[Any], Any]) -> Any:
    """The chain of ``n`` operations, as each library's user writes it."""
    y = x
    for _ in range(n // 4):
        y = y * 1.0001
        y = tanh(y)
        y = y + x
        y = y - 0.5
    return y


def raw(x: np.ndarray, n: int) -> np.ndarray:
    """By hand: NumPy alone, with the outputs of tanh on a tape."""
    y, tape = x, []
    for _ in range(n // 4):
        y = y * 1.0001
        y = np.tanh(y)
        tape.append(y)
        y = y + x
        y = y - 0.5
    g, total = np.ones_like(x), np.zeros_like(x)
    for out in reversed(tape):
        total = total + g
        g = g * (1 - out * out)
        g = g * 1.0001
    return total + g


def _scg() -> Gradient:
    import scg

    return lambda x, n: scg.grad(lambda p: np.sum(links(p, n, np.tanh)))(x)


def _torch() -> Gradient:
    import torch

    torch.set_num_threads(1)

    def gradient(x: np.ndarray, n: int) -> np.ndarray:
        p = torch.tensor(x, requires_grad=True)
        (g,) = torch.autograd.grad(links(p, n, torch.tanh).sum(), p)
        return g.numpy()

    return gradient


def _autograd() -> Gradient:
    import autograd.numpy as anp
    from autograd import grad

    return lambda x, n: grad(lambda p: anp.sum(links(p, n, anp.tanh)))(x)


def _mygrad() -> Gradient:
    import mygrad

    def gradient(x: np.ndarray, n: int) -> np.ndarray:
        p = mygrad.tensor(x)
        links(p, n, np.tanh).sum().backward()
        return p.grad

    return gradient


def _mygrad_unguarded() -> Gradient:
    import mygrad

    return mygrad.mem_guard_off(_mygrad())


PEERS = {
    "raw NumPy": lambda: raw,
    "scg": _scg,
    "PyTorch": _torch,
    "autograd": _autograd,
    "MyGrad": _mygrad,
    "MyGrad, unguarded": _mygrad_unguarded,
}


def installed() -> tuple[dict[str, Gradient], list[str]]:
    """The libraries that can be imported here, checked against the gradient by hand; and the names of those that are
    missing."""
    found, missing, x = {}, [], np.linspace(-1, 1, 10)
    for name, load in PEERS.items():
        try:
            found[name] = load()
        except ImportError:
            missing.append(name)
            continue
        np.testing.assert_allclose(found[name](x, 40), raw(x, 40), rtol=1e-12, err_msg=name)
    return found, missing


def measure(peers: dict[str, Gradient], n: int, rounds: int) -> dict[str, float]:
    """Microseconds for one gradient of a chain of ``n`` operations: medians of interleaved rounds, each as long as 2000
    operations at least."""
    x, repeats = np.linspace(-1, 1, 10), max(1, 2000 // n)

    def subject(gradient: Gradient) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                gradient(x, n)

        return run

    return medians(interleaved({name: subject(gradient) for name, gradient in peers.items()}, rounds), 1e6 / repeats)


def alone(name: str, n: int) -> dict[str, float]:
    """Seconds and bytes of one chain in this process (called in a fresh one)."""
    gradient, x = PEERS[name](), np.linspace(-1, 1, 10)
    gradient(x, 400)
    before = peak_bytes()
    start = time.perf_counter()
    gradient(x, n)
    return {"seconds": time.perf_counter() - start, "peak": peak_bytes(), "growth": (peak_bytes() - before) / n}


def long_chain(name: str, n: int) -> dict[str, float] | str:
    """``alone`` in a process of its own; the last line of its complaint where it fails."""
    command = [sys.executable, "-m", "benchmarks.chain", "--alone", name, "--length", str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=2000, metavar="N", help="operations in the chain (default 2000)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=21,
        metavar="R",
        help="interleaved rounds of which the median is taken (default 21)",
    )
    parser.add_argument(
        "--long",
        type=int,
        default=0,
        metavar="N",
        help="also one chain of N operations in a process of its own, such as 1000000",
    )
    parser.add_argument(
        "--only", nargs="+", choices=PEERS, metavar="NAME", help=f"measure these alone, of: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--out",
        default=RESULTS / "chain.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/chain.json)",
    )
    parser.add_argument("--alone", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.alone:
        print(json.dumps(alone(options.alone, options.length)))
        return
    peers, missing = installed()
    peers = {name: peer for name, peer in peers.items() if not options.only or name in options.only}
    chain = measure(peers, options.length, options.rounds)
    small = measure(peers, 10, options.rounds)
    record: dict[str, Any] = {
        "versions": versions("numpy", "scipy", "torch", "autograd", "mygrad"),
        "missing": missing,
        "length": options.length,
        "rounds": options.rounds,
        "microseconds an operation": {name: t / options.length for name, t in chain.items()},
        "microseconds a gradient of ten operations": small,
    }
    print(", ".join(f"{package} {version}" for package, version in record["versions"].items() if version))
    if missing:
        print(f"missing: {', '.join(missing)} (pip install -e '.[bench]')")
    scg = chain.get("scg", np.nan)
    rows = [[name, t / options.length, t / scg, small[name]] for name, t in chain.items()]
    print(f"\nchain of {options.length} operations on 10 numbers, float64; medians of {options.rounds} rounds")
    print(table([["", "us an operation", "times scg", "small: us a gradient"], *rows]))
    if options.long:
        record["long"] = {name: long_chain(name, options.long) for name in peers}
        print(f"\none chain of {options.long} operations")
        rows = [
            [name, r["seconds"], r["peak"] / 1e9, r["growth"]] if isinstance(r, dict) else [name, r, "", ""]
            for name, r in record["long"].items()
        ]
        print(table([["", "seconds", "peak GB", "bytes a link"], *rows]))
    save(record, options.out)


if __name__ == "__main__":
    main()
