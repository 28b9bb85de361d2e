"""The images the models learn from: scikit-learn's digits, or MNIST and EMNIST files in the IDX format.

Nothing here uses the network. Pixels stay the bytes they were read as; `Dataset.batch` scales, resizes and normalises
the images of one batch, so that EMNIST's 800,000 images take 0.6 GB of memory and not 3.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnnkernels.idx import DataError, IdxPair, find_idx_files

__all__ = ["DataError", "Dataset", "Part", "load_dataset", "shake"]

_MERGED_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
_EMNIST_CLASSES = {
    "emnist-balanced": _MERGED_LETTERS,
    "emnist-bymerge": _MERGED_LETTERS,
    "emnist-byclass": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    # The labels of the letters count from 1: class 0 stays without an image.
    "emnist-letters": "-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
}


@dataclass(frozen=True)
class Part:
    """Images and their labels: uint8 [N, height, width] and int64 [N]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor | slice) -> Part:
        """The part of this part that `rows` (indices or a slice) name."""
        return Part(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one source, handed out as batches that a model of `input_size` takes.

    `white` is the pixel value that becomes 1; `mean` and `std` are those of the training pixels on that scale.
    """

    name: str
    description: str
    train: Part
    test: Part
    class_names: tuple[str, ...]
    input_size: int
    white: float
    mean: float
    std: float

    def batch(self, part: Part, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images fp32 [n, 1, input_size, input_size] and labels int64 [n] of the given rows of `part`."""
        chosen = part.select(rows)
        images = chosen.pixels.unsqueeze(1).float() / self.white
        if self._margin:
            images = functional.pad(images, (self._margin,) * 4)
        elif tuple(images.shape[2:]) != (self.input_size, self.input_size):
            size = (self.input_size, self.input_size)
            images = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return (images - self.mean) / self.std, chosen.labels

    @property
    def checksum(self) -> int:
        """CRC-32 of all pixels and labels: of other images it is another."""
        checksum = 0
        for part in (self.train, self.test):
            for tensor in (part.pixels, part.labels):
                checksum = zlib.crc32(tensor.contiguous().numpy().data, checksum)
        return checksum

    @property
    def preparation(self) -> str:
        """How an image becomes the model's input, in words."""
        height, width = self.train.pixels.shape[1:]
        size = f"{self.input_size}x{self.input_size}"
        if self._margin:
            return f"{height}x{width} images with a border of {self._margin} make {size}"
        if (height, width) == (self.input_size, self.input_size):
            return f"{size} images as they are"
        return f"{height}x{width} images scaled to {size} (bilinear)"

    @property
    def _margin(self) -> int:
        # LeNet-5 has always seen MNIST's 28x28 images in the middle of a 32x32 field; other sizes are scaled.
        return 2 if tuple(self.train.pixels.shape[1:]) == (28, 28) and self.input_size == 32 else 0


def load_dataset(source: str | Path, input_size: int) -> Dataset:
    """The dataset named "digits", or the one in the IDX files at the path `source`, for a model of `input_size`.

    A path is a folder with MNIST's files (`train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, ...) or one split of
    EMNIST's (`emnist-letters-train-images-idx3-ubyte`, ...), each gzipped or not, or one of these files, which finds
    the others. Where both the training and the test files are there, they are used as such; of a single set the first
    80 % train and the last 20 % test.

    Raises DataError for whatever is missing, truncated or malformed.
    """
    return _digits(input_size) if str(source) == "digits" else _from_idx(Path(source).expanduser(), input_size)


def shake(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images [n, 1, height, width], each turned by up to 10 degrees, scaled by up to 10 %, moved by up to 5 %."""

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(len(images), generator=generator) - 1) * limit

    angle, scale = uniform(math.radians(10)), 1 + uniform(0.1)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    # affine_grid counts from -1 to 1, so that 0.1 of its units is a twentieth of the image.
    rows = torch.stack([cosine, -sine, uniform(0.1)], 1), torch.stack([sine, cosine, uniform(0.1)], 1)
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _digits(input_size: int) -> Dataset:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DataError("the digits come with scikit-learn, which is missing: pip install cnnkernels[train]") from error
    digits = load_digits()
    # The split does not depend on the training's seed: every run is tested on the same 360 images.
    train, test = train_test_split(np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0)
    whole = Part(torch.from_numpy(digits.images.astype(np.uint8)), torch.from_numpy(digits.target.astype(np.int64)))
    return _dataset(
        name="digits",
        description=f"scikit-learn's digits: {len(train):,} to train, {len(test):,} held out (stratified)",
        train=whole.select(torch.from_numpy(train)),
        test=whole.select(torch.from_numpy(test)),
        class_names="0123456789",
        input_size=input_size,
        white=16.0,
    )


def _from_idx(path: Path, input_size: int) -> Dataset:
    found = find_idx_files(path)
    if found.train and found.test:
        train, test = _read_part(found.train), _read_part(found.test)
        if train.pixels.shape[1:] != test.pixels.shape[1:]:
            raise DataError(f"{path}: the training images and the test images differ in size")
        description = (
            f"{found.train.images.name}: {len(train):,} to train; {found.test.images.name}: {len(test):,} to test"
        )
    else:
        pair = found.train or found.test
        assert pair is not None, "a collection has at least one pair"
        whole = _read_part(pair)
        boundary = len(whole) * 4 // 5
        if not boundary:
            raise DataError(f"{pair.images}: a single image cannot be split into a training and a test set")
        train, test = whole.select(slice(boundary)), whole.select(slice(boundary, None))
        description = f"{pair.images.name}: the first {len(train):,} to train, the last {len(test):,} to test"
    largest = int(max(train.labels.max(), test.labels.max()))
    known = _EMNIST_CLASSES.get(found.name, "")
    return _dataset(
        name=found.name,
        description=description + ("; turned upright (EMNIST is stored transposed)" if "emnist" in found.name else ""),
        train=train,
        test=test,
        class_names=known if largest < len(known) else [str(label) for label in range(max(10, largest + 1))],
        input_size=input_size,
        white=255.0,
    )


def _read_part(pair: IdxPair) -> Part:
    images, labels = pair.read()
    return Part(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))


def _dataset(
    *, name: str, description: str, train: Part, test: Part, class_names: Sequence[str], input_size: int, white: float
) -> Dataset:
    # Whole numbers until the last division, so that no order of summation enters the model's inputs.
    levels = train.pixels.long()
    count, total, squares = levels.numel(), int(levels.sum()), int(levels.square().sum())
    mean = total / count / white
    variance = (squares * count - total**2) / (count * white) ** 2
    if not variance:
        raise DataError(f"{name}: all pixels of the training images have the same value")
    return Dataset(name, description, train, test, tuple(class_names), input_size, white, mean, variance**0.5)
