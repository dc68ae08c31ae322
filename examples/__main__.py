"""List the examples: what each is, and the time that it takes with its defaults on two cores."""

import importlib
import sys
from collections.abc import Sequence

EXAMPLES = (
    "ppca",
    "autoencoder",
    "vae",
    "iwae",
    "discrete_vae",
    "sequence",
    "state_space",
    "compare",
    "gallery",
    "policy_losses",
    "lecture",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each example; the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if given and given != ["--help"]:
        name = given[0].removesuffix(".py")
        way = (
            f"python -m examples.{' '.join([name, *given[1:]])}"
            if name in EXAMPLES
            else "python -m examples lists them"
        )
        print(f"error: an example is a module of its own: {way}", file=sys.stderr)
        return 2
    for name in EXAMPLES:
        module = importlib.import_module(f"examples.{name}")
        first, _, _ = (module.__doc__ or "").partition("\n")
        print(f"python -m examples.{name:<14} {first}  [{module.TAKES}]")
    print("\n--help shows the options of each. Data, metrics, checkpoints and figures: see the README.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
