"""Multilayer perceptrons as plain functions of plain parameters."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from scg.core.advice import absent
from scg.core.node import Value
from scg.core.operands import described, require_plain
from scg.core.options import is_integer
from scg.errors import ScgTypeError, ScgValueError, here

__all__ = ["Layer", "apply", "mlp"]


class Layer(NamedTuple):
    """An affine map x -> x @ weight + bias; ``weight`` has shape (inputs, outputs), ``bias`` (outputs,)."""

    weight: Value
    bias: Value


def mlp(sizes: Sequence[int], rng: np.random.Generator, dtype: DTypeLike = np.float32) -> list[Layer]:
    """Initial parameters of a perceptron with ``sizes[0]`` inputs, ``sizes[1:-1]`` hidden units and ``sizes[-1]``
    outputs.

    Weights are uniform on (-l, l) with l = sqrt(6 / (inputs + outputs)), so that their variance is 2 / (inputs +
    outputs) and neither values nor cotangents grow or shrink from layer to layer (Glorot and Bengio, 2010); biases are
    zero.
    """
    sizes = list(sizes) if np.ndim(sizes) == 1 else [sizes]  # type: ignore[list-item]
    if len(sizes) < 2 or not all(is_integer(n, 1) for n in sizes):
        raise ScgValueError(
            f"mlp needs two or more positive sizes, inputs first and outputs last, got {sizes} ({here()})"
        )
    if not isinstance(rng, np.random.Generator):
        raise ScgTypeError(
            f"mlp needs a numpy.random.Generator, got {type(rng).__name__}: use np.random.default_rng(seed) ({here()})"
        )
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        raise ScgTypeError(f"mlp makes floating-point parameters, got dtype {dtype} ({here()})")
    layers = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        limit = (6 / (inputs + outputs)) ** 0.5
        layers.append(Layer(rng.uniform(-limit, limit, (inputs, outputs)).astype(dtype), np.zeros(outputs, dtype)))
    return layers


def apply(params: Sequence[Layer], x: Value, activation: Callable[[Value], Value] = np.tanh) -> Value:
    """The perceptron's output for ``x`` of shape (..., inputs): affine maps with ``activation`` between them, none
    after the last."""
    require_plain(x, "the input")
    if not callable(activation):
        raise ScgTypeError(f"activation must be a function such as np.tanh, got {described((activation,))} ({here()})")
    if not isinstance(params, Sequence) or not all([isinstance(p, (tuple, list)) and len(p) == 2 for p in params]):
        raise ScgTypeError(
            f"apply needs a list of layers, pairs of a weight and a bias, as scg.nn.mlp makes them, got"
            f" {described((params,))} ({here()})"
        )
    for i, (weight, bias) in enumerate(params):
        if np.shape(x)[-1:] != weight.shape[:1]:
            raise ScgValueError(
                f"layer {i} takes {weight.shape[0]} inputs on the last axis, got shape {np.shape(x)} ({here()})"
            )
        x = x @ weight + bias
        if i + 1 < len(params):
            x = activation(x)
    return x


if not TYPE_CHECKING:  # for which a name that is not there is an error
    __getattr__ = absent(
        __name__,
        dict.fromkeys(("Linear", "Dense", "Module", "Sequential", "MLP"), "scg.nn.mlp(sizes, rng) and scg.nn.apply"),
    )
