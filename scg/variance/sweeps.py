"""Comparisons along a parameter: lines."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import stdtrit

from scg.core.aliases import Function, Operand, Result
from scg.core.progress import Progress, reporter
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.files import write
from scg.variance.bindings import Bindings
from scg.variance.comparing import compare, entropy_of
from scg.variance.environment import environment
from scg.variance.plotting import lines
from scg.variance.report import Report, finite
from scg.variance.rows import Entry, number


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Reports along a parameter called ``name``: ``sweep[i]`` is that of ``values[i]``."""

    name: str
    values: tuple[object, ...]
    reports: tuple[Report, ...]

    def __getitem__(self, i: int) -> Report:
        return self.reports[i]

    def __len__(self) -> int:
        return len(self.reports)

    def __iter__(self) -> Iterator[Report]:
        return iter(self.reports)

    @property
    def labels(self) -> list[str]:
        """The rows, in order of first appearance."""
        return list(dict.fromkeys(label for report in self.reports for label in report))

    def line(self, label: str, field: str = "variance", parameter: str = "total") -> tuple[np.ndarray, np.ndarray]:
        """(values, the field of a row along them), where the row is there."""
        found = [
            (v, getattr(_entry(r, label, parameter), field))
            for v, r in zip(self.values, self.reports, strict=True)
            if label in r.rows
        ]
        if not found:
            raise ScgValueError(f"no row is called {label!r}; there are {', '.join(map(repr, self.labels))} ({here()})")
        return np.array([v for v, _ in found], float), np.array([y for _, y in found], float)

    def slope(
        self, label: str, field: str = "snr", parameter: str = "total", level: float = 0.95
    ) -> tuple[float, float, float]:
        """(slope, low, high) of log field over log value by least squares, and the interval of Student's t around it;
        nan with two points."""
        x, y = self.line(label, field, parameter)
        usable = (x > 0) & (y > 0) & np.isfinite(y)
        if usable.sum() < 2:
            raise ScgValueError(f"slope of {label!r}: needs two positive values, got {usable.sum()} ({here()})")
        u, v = (np.log(z[usable]) - np.mean(np.log(z[usable])) for z in (x, y))
        freedom, slope = len(u) - 2, float(u @ v / (u @ u))
        half = (
            float(stdtrit(freedom, 0.5 + level / 2) * np.sqrt(np.sum((v - slope * u) ** 2) / freedom / (u @ u)))
            if freedom
            else math.nan
        )
        return slope, slope - half, slope + half

    def __repr__(self) -> str:
        return f"<Sweep of {len(self.reports)} values of {self.name}: {', '.join(self.labels)}>"

    def __str__(self) -> str:
        return self.table()

    def table(self, field: str = "variance", parameter: str = "total") -> str:
        """A field (of ``Entry``), a line a value and a column a row."""
        labels = self.labels
        lines = [[self.name, *labels]]
        for value, report in zip(self.values, self.reports, strict=True):
            cells = [
                number(float(getattr(_entry(report, label, parameter), field))) if label in report.rows else ""
                for label in labels
            ]
            lines.append([f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value), *cells])
        widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
        body = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*body, f"{field} ({parameter})"])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line a value and entry, all fields; all of it or nothing."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [self.name, *[f.name for f in fields(Entry)]], lineterminator="\n")
        writer.writeheader()
        for value, report in zip(self.values, self.reports, strict=True):
            for entry in report.entries:
                writer.writerow({self.name: value, **vars(entry)})
        write(path, out.getvalue().encode())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write values, entries, seeds, versions and machine; all of it or nothing."""
        drop = set(environment())
        reports = [
            {self.name: _as_json(v), **{k: x for k, x in r.as_dict().items() if k not in drop}}
            for v, r in zip(self.values, self.reports, strict=True)
        ]
        write(
            path,
            (
                json.dumps(finite({"name": self.name, "reports": reports, **environment()}), indent=1, allow_nan=False)
                + "\n"
            ).encode(),
        )

    def plot(self, path: str | os.PathLike[str] | None = None, field: str = "variance", **kwargs: Operand) -> Result:
        """Draw a line a row to a file (.svg, .png, .pdf), or with ``ax=`` into Axes of yours, which are returned.

        See ``scg.variance.plotting.lines``. Needs matplotlib.
        """
        return lines(self, path, field, **kwargs)


def sweep(
    make: Function,
    values: Sequence[object],
    bindings: Bindings,
    *,
    rng: np.random.Generator | None = None,
    name: str = "value",
    progress: Progress = None,
    **options: Operand,
) -> Sweep:
    """``compare`` for each of ``values`` of a parameter: K, a temperature, theta.

    ``make(value)`` returns the Graph or function that is compared; ``bindings`` are the rows, or a function of the
    value that returns them (where the parameter is one of an estimator). ``options`` are those of ``compare``. All
    values have the same seed, so that what differs along a line is not the samples. ``progress`` is called with the
    values that are done, and how many there are; True shows a bar. Errors name the value. After Ctrl-C the sweep is of
    the values so far, the last with the replicates that were drawn.
    """
    if not callable(make):
        raise ScgTypeError(
            f"sweep needs a function of the value that returns a graph or a function, got {type(make).__name__}"
            f" ({here()})"
        )
    if not np.iterable(values):
        raise ScgTypeError(f"sweep needs a sequence of values, got {values!r} ({here()})")
    values = tuple(values)
    if not values:
        raise ScgValueError(f"sweep needs values, got none ({here()})")
    if not isinstance(name, str):
        raise ScgTypeError(f"sweep: name is what the values are called, a string, got {name!r} ({here()})")
    report = reporter(progress)
    seed = entropy_of(rng)
    reports = []
    for i, value in enumerate(values):
        try:
            rows = bindings(value) if callable(bindings) else bindings
            reports.append(compare(make(value), rows, rng=np.random.default_rng(seed), **options))
        except ScgError as error:
            raise _at(error, name, value) from error
        report(i + 1, len(values))
        if reports[-1].interrupted:
            break
    return Sweep(name, values[: len(reports)], tuple(reports))


def _entry(report: Report, label: str, parameter: str) -> Entry:
    row = report[label]
    return row.total if parameter == "total" else row.entries[parameter]


def _at(error: ScgError, name: str, value: object) -> ScgError:
    try:
        return type(error)(f"{name} = {value!r}: {error}")
    except TypeError:
        return ScgValueError(f"{name} = {value!r}: {error}")


def _as_json(value: object) -> object:
    return (
        value.item()
        if isinstance(value, np.generic)
        else value
        if isinstance(value, (int, float, str, bool, type(None)))
        else str(value)
    )
