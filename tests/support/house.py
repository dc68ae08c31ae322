"""What is declared of the house in setup.cfg."""

import configparser
from pathlib import Path

import scg

ROOT = Path(scg.__file__).parents[1]


def contract():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    layers = parser["importlinter:contract:layers"]["layers"].split("\n")
    return [[name.strip() for name in layer.split("|")] for layer in layers if layer.strip()]
