"""Nested structures of arrays, numbers, strings and random generators in one file that is whole or refused.

The file is a NumPy archive: ``np.load(path)`` reads its arrays without pickle. Its last 64 bytes, inside the archive's
comment, are the SHA-256 of all bytes before them.
"""

import copy
import dataclasses
import hashlib
import io
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Mapping, MutableMapping

import numpy as np

from scg.core.aliases import Tree
from scg.core.node import Node
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.files import FileWriteError, as_path, irregular, write

__all__ = ["CheckpointError", "CheckpointWriteError", "load", "save"]

_STRUCTURE, _MARK, _DIGEST = "structure", b"scg checkpoint 1 sha256 ", 64
_NAME = 255  # characters of an array's name in the archive; zip files allow 2^16 bytes


class CheckpointError(ScgError, ValueError):
    """A file that is no checkpoint, that is damaged, or that holds another structure than the one asked for."""


class CheckpointWriteError(ScgError, OSError):
    """The file could not be written (a full disk, say); what stood there before still does."""


def save(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write ``tree`` to ``path``, all of it or nothing: a reader, a crash or a full disk meets the old file or the new
    one.

    ``tree`` nests dicts with string keys, lists, tuples, named tuples and dataclasses; its leaves are arrays (none of
    Python objects), NumPy scalars, ``numpy.random.Generator``, None, booleans, integers, floats and strings. Raises
    ScgTypeError at anything else, ScgValueError for a tree that holds itself, and CheckpointWriteError where the system
    refuses or ``path`` is no regular file. Links, modes and what killed writers left are as ``scg.files.write`` says.
    """
    data = _archive(tree)
    path = as_path(path)
    try:
        write(path, data)
    except FileWriteError as error:
        raise CheckpointWriteError(error.errno, error.strerror) from error
    except OSError as error:
        raise CheckpointWriteError(
            error.errno, f"cannot write checkpoint {path}: {error.strerror or error}; what stood there is unchanged"
        ) from error


def load(path: str | os.PathLike[str], like: Tree = None) -> Tree:
    """The tree that ``save`` wrote to ``path``, in new arrays and generators.

    Named tuples and dataclasses come as dicts of their fields, or, with ``like``, as the containers of that tree, which
    must then agree with the file in structure and in the shapes and dtypes of its arrays. Raises CheckpointError for a
    file that differs in any byte from what ``save`` wrote, and OSError (FileNotFoundError, ...) for one that cannot be
    read.
    """
    path = as_path(path)
    what = irregular(path.stat().st_mode)
    if what:
        raise CheckpointError(f"{path} is no checkpoint: it is {what}, no regular file")
    data = path.read_bytes()
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if not body.startswith(b"PK\x03\x04") or not body.endswith(_MARK):
        raise CheckpointError(
            f"{path} ({len(data)} bytes) is no checkpoint, or it is truncated or damaged: its frame is missing"
        )
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one recorded in it; use an earlier copy")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        tree = _decode(json.loads(str(arrays.pop(_STRUCTURE))), arrays)
    except Exception as error:
        raise CheckpointError(
            f"{path} has a valid checksum, yet cannot be read: {error}; was it written by another version?"
        ) from error
    return tree if like is None else _shaped(tree, like, str(path), "")


def _archive(tree: Tree) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    try:
        structure = json.dumps(_encode(tree, "", arrays, ()))
    except RecursionError:
        raise ScgValueError(
            f"a checkpoint cannot hold a tree that is nested so deeply: keep what it is made of in a list ({here()})"
        ) from None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {_STRUCTURE: np.array(structure), **arrays}.items():
            # ZipInfo's date is fixed: equal trees, equal bytes
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = _MARK + b"0" * _DIGEST
    body = buffer.getbuffer()[:-_DIGEST]
    return bytes(body) + hashlib.sha256(body).hexdigest().encode()


def _encode(tree: Tree, path: str, arrays: dict[str, np.ndarray], above: tuple[int, ...]) -> Tree:
    """The tree as JSON: scalars as they are, everything else an object with one key that says what it is; ``above`` are
    the ids of what holds it."""
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, (np.ndarray, np.generic)):
        if tree.dtype.hasobject or isinstance(tree, np.ma.MaskedArray):
            raise ScgTypeError(
                f"a checkpoint holds plain arrays, got {type(tree).__name__} of dtype {tree.dtype} at"
                f" {path or 'the top'} ({here()})"
            )
        plain = len(path) <= _NAME and path.isprintable() and path.isascii() and path not in ("", _STRUCTURE, *arrays)
        name = (
            path if plain else next(name for k in itertools.count(len(arrays)) if (name := f"array {k}") not in arrays)
        )
        arrays[name] = np.asarray(tree)
        return {"array" if isinstance(tree, np.ndarray) else "scalar": name}
    if isinstance(tree, np.random.Generator):
        return {"generator": _encode(tree.bit_generator.state, path, arrays, above)}
    if id(tree) in above:
        raise ScgValueError(
            f"a checkpoint cannot hold a tree that holds itself, at {path or 'the top'}: take it apart first ({here()})"
        )
    above = (*above, id(tree))
    if isinstance(tree, Mapping):
        odd = next((key for key in tree if type(key) is not str), None)
        if odd is not None:
            raise ScgTypeError(f"a checkpoint's dicts have string keys, got {odd!r} at {path or 'the top'} ({here()})")
        return {"dict": {key: _encode(child, _join(path, key), arrays, above) for key, child in tree.items()}}
    fields = _fields(tree)
    if fields is not None:
        return {"dict": {key: _encode(child, _join(path, key), arrays, above) for key, child in fields.items()}}
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_encode(child, _join(path, str(i)), arrays, above) for i, child in enumerate(tree)]}
    advice = "save node.value" if type(tree) is Node else "save the arrays, numbers and strings that it is made of"
    if hasattr(tree, "state"):  # an optimizer, an estimator that learns
        advice = "save its .state, and assign what is loaded to that"
    raise ScgTypeError(
        f"a checkpoint cannot hold an object of {type(tree).__name__}, at {path or 'the top'}: {advice} ({here()})"
    )


def _decode(code: Tree, arrays: dict[str, np.ndarray]) -> Tree:
    if not isinstance(code, dict):
        return code
    ((kind, content),) = code.items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "dict":
        return {key: _decode(child, arrays) for key, child in content.items()}
    if kind == "generator":
        return _generator(_decode(content, arrays))
    return {"list": list, "tuple": tuple}[kind](_decode(child, arrays) for child in content)


def _generator(state: dict[str, Tree]) -> np.random.Generator:
    kind = getattr(np.random, state["bit_generator"])
    if not issubclass(kind, np.random.BitGenerator):
        raise ValueError(f"{state['bit_generator']} is no bit generator")
    bits = kind()
    bits.state = state
    return np.random.Generator(bits)


def _shaped(tree: Tree, like: Tree, file: str, path: str) -> Tree:
    """``tree`` in the containers of ``like``; CheckpointError where the two do not agree."""

    def differ(wanted: str, got: str) -> CheckpointError:
        return CheckpointError(
            f"{file} holds another structure: {path or 'the top'} should be {wanted}, and is {got}; was it saved by"
            " another model?"
        )

    def made(make: Callable[[], Tree]) -> Tree:
        try:
            return make()
        except Exception as error:
            advice = "give a like= of dicts, lists and tuples"
            raise CheckpointError(
                f"{file}: no {type(like).__name__} can be made for {path or 'the top'}: {error}; {advice}"
            ) from error

    fields = dict(like) if isinstance(like, Mapping) else _fields(like)
    if fields is not None:
        if not isinstance(tree, dict) or tree.keys() != fields.keys():
            raise differ(f"a dict of {list(fields)}", _kind(tree))
        values = {key: _shaped(tree[key], fields[key], file, _join(path, key)) for key in fields}
        if isinstance(like, tuple):
            return made(lambda: type(like)(*values.values()))
        if isinstance(like, Mapping):
            return made(lambda: _mapping(like, values))
        new = object.__new__(type(like))  # not __init__: it may convert or refuse
        for key, value in values.items():
            object.__setattr__(new, key, value)
        return new
    if isinstance(like, (list, tuple)):
        if not isinstance(tree, type(like)) or len(tree) != len(like):
            raise differ(f"a {type(like).__name__} of {len(like)}", _kind(tree))
        items = [_shaped(t, k, file, _join(path, str(i))) for i, (t, k) in enumerate(zip(tree, like, strict=True))]
        return made(lambda: type(like)(items))
    if _kind(tree) != _kind(like):
        raise differ(_kind(like), _kind(tree))
    return tree


def _mapping(like: Tree, values: dict[str, Tree]) -> Tree:
    """A mapping like ``like`` with these values: what else it knows, such as the factory of a defaultdict, it keeps."""
    if type(like) is dict:
        return values
    if not isinstance(like, MutableMapping):
        return type(like)(values)
    new = copy.copy(like)
    new.clear()
    new.update(values)
    return new


def _kind(leaf: object) -> str:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return (
            f"{'an array' if isinstance(leaf, np.ndarray) else 'a scalar'} of shape {leaf.shape} and dtype {leaf.dtype}"
        )
    if isinstance(leaf, dict):
        return f"a dict of {list(leaf)}"
    return f"a {type(leaf).__name__} of {len(leaf)}" if isinstance(leaf, (list, tuple)) else type(leaf).__name__


def _fields(tree: Tree) -> dict[str, Tree] | None:
    """A named tuple's or dataclass's fields by name."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return dict(zip(tree._fields, tree, strict=True))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
