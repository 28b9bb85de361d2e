"""MNIST's and EMNIST's IDX files: finding the ones that belong together, and reading them.

An IDX file is a big-endian header (two zero bytes, the element type, the number of dimensions, then each dimension as
a 32-bit integer) and the bytes of the array. Every fault of a file becomes a DataError of one line.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTE = 0x08
_KINDS = {3: "images", 1: "labels"}
_NAME = re.compile(
    r"(?P<collection>.*?)(?P<part>train|t10k|test)?-?(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?", re.IGNORECASE
)
_EXPECTED_NAMES = (
    "train-images-idx3-ubyte, t10k-labels-idx1-ubyte, emnist-<split>-train-images-idx3-ubyte, ... (or .gz)"
)


class DataError(ValueError):
    """Data that cannot be used; the message is one line that names the file and the reason."""


@dataclass(frozen=True)
class IdxPair:
    """An images file and the labels file that belongs to it."""

    images: Path
    labels: Path

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images [N, height, width], upright, and labels [N]. Raises DataError where the files are at fault."""
        images, labels = read_idx(self.images, dimensions=3), read_idx(self.labels, dimensions=1)
        if len(images) != len(labels):
            raise DataError(
                f"{self.images} holds {len(images):,} images, but {self.labels.name} holds {len(labels):,} labels"
            )
        # EMNIST was written column by column; MNIST row by row.
        return (images.transpose(0, 2, 1) if "emnist" in self.images.name.lower() else images), labels


@dataclass(frozen=True)
class IdxCollection:
    """The files of one collection, such as MNIST or EMNIST letters; a part that is not there is None."""

    name: str
    train: IdxPair | None
    test: IdxPair | None


def find_idx_files(path: Path) -> IdxCollection:
    """The collection in the folder `path`, or the one that the file `path` is of.

    Raises DataError where there is none, where the folder has several, or where images or labels lack their partner.
    """
    try:
        if path.is_dir():
            return _collection_in(path, wanted=None)
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        parsed = _NAME.fullmatch(path.name)
        if parsed is None:
            _array_of(path)  # a file that is not IDX at all says so first
            raise DataError(f"{path}: the name does not say which file is its partner; expected {_EXPECTED_NAMES}")
        return _collection_in(path.parent, wanted=parsed["collection"].lower())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of the IDX file `path` (gzipped or not), which has to have `dimensions` dimensions: 3 images, 1 labels.

    Raises DataError where the file is missing, truncated, damaged or something else.
    """
    array = _array_of(path)
    if array.ndim != dimensions:
        found = _KINDS.get(array.ndim, f"{array.ndim}-dimensional data")
        raise DataError(f"{path}: holds {found}, not {_KINDS[dimensions]}")
    if array.size == 0:
        raise DataError(f"{path}: is empty: its header says {'x'.join(map(str, array.shape))}")
    return array


def _collection_in(folder: Path, wanted: str | None) -> IdxCollection:
    files: dict[str, dict[str, dict[str, Path]]] = {}
    # Sorted backwards, so that a plain file replaces the gzipped one of the same name.
    for file in sorted(folder.iterdir(), reverse=True):
        parsed = _NAME.fullmatch(file.name)
        if parsed is None or not file.is_file():
            continue
        collection, part, kind = (
            parsed["collection"].lower(),
            (parsed["part"] or "train").lower(),
            parsed["kind"].lower(),
        )
        if wanted in (None, collection):
            part = "train" if part == "train" else "test"
            files.setdefault(collection, {}).setdefault(part, {})[kind] = file
    if not files:
        raise DataError(f"{folder}: no IDX files here; expected {_EXPECTED_NAMES}")
    if len(files) > 1:
        names = ", ".join(sorted(name.strip("-") or "mnist" for name in files))
        raise DataError(f"{folder}: several collections here ({names}); give the path of one of their files instead")
    [(collection, parts)] = files.items()
    pairs = {part: _pair(kinds) for part, kinds in parts.items()}
    return IdxCollection(collection.strip("-") or "mnist", pairs.get("train"), pairs.get("test"))


def _pair(kinds: dict[str, Path]) -> IdxPair:
    if len(kinds) == 2:
        return IdxPair(kinds["images"], kinds["labels"])
    [(kind, file)] = kinds.items()
    partner = "labels" if kind == "images" else "images"
    expected = re.sub("images|labels", partner, file.name, flags=re.IGNORECASE)
    expected = re.sub("idx[13]", "idx1" if partner == "labels" else "idx3", expected)
    raise DataError(f"{file}: its {partner} file {expected.removesuffix('.gz')} (or .gz) is not beside it")


def _array_of(path: Path) -> NDArray[np.uint8]:
    content = _content_of(path)
    if len(content) < 4:
        raise DataError(f"{path}: truncated: {len(content)} bytes are too few for an IDX header")
    zeros, element, dimensions = int.from_bytes(content[:2], "big"), content[2], content[3]
    if zeros or element != _UNSIGNED_BYTE or not dimensions:
        raise DataError(
            f"{path}: not an IDX file of bytes: it starts with {content[:4].hex(' ')}, not with 00 00 08 0n"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path}: truncated: {len(content)} bytes are too few for its header of {start}")
    shape = [int(extent) for extent in np.frombuffer(content, ">u4", dimensions, offset=4)]
    promised, present = math.prod(shape), len(content) - start
    if present != promised:
        fault = "truncated" if present < promised else "too long"
        extent = "x".join(f"{size:,}" for size in shape)
        raise DataError(f"{path}: {fault}: its header promises {extent} = {promised:,} bytes, the file has {present:,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content_of(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        # By content, not by name: a browser that unpacks a download often keeps the ".gz".
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except EOFError as error:
        raise DataError(f"{path}: truncated: the gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
