"""List the examples: what each is, and the time that it takes with its defaults on two cores."""

import importlib

EXAMPLES = ("ppca", "autoencoder", "vae", "iwae", "discrete_vae", "sequence", "compare", "gallery")


def main() -> None:
    """Print a line for each example."""
    for name in EXAMPLES:
        module = importlib.import_module(f"examples.{name}")
        first, _, _ = (module.__doc__ or "").partition("\n")
        print(f"python -m examples.{name:<13} {first}  [{module.TAKES}]")
    print("\n--help shows the options of each. Data, metrics, checkpoints and figures: see the README.")


if __name__ == "__main__":
    main()
