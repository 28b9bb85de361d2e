"""Reading the images: what a good folder gives, and the one line that a bad one gets."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnkernels.data import DataError, load_dataset, shake


def write_idx(path: Path, array: np.ndarray) -> Path:
    """Write `array` as an IDX file, gzipped where the name says so."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def make_images(count: int, size: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def make_labels(count: int, classes: int = 10) -> np.ndarray:
    return np.arange(count, dtype=np.uint8) % classes


def write_set(folder: Path, part: str, count: int, *, dot: str = "-", suffix: str = "", prefix: str = "") -> np.ndarray:
    images = make_images(count, seed=count)
    write_idx(folder / f"{prefix}{part}-images{dot}idx3-ubyte{suffix}", images)
    write_idx(folder / f"{prefix}{part}-labels{dot}idx1-ubyte{suffix}", make_labels(count))
    return images


def test_digits_are_the_same_stratified_split_every_time() -> None:
    one, other = load_dataset("digits", 32), load_dataset("digits", 28)
    assert (len(one.train), len(one.test)) == (1437, 360)
    assert torch.equal(one.test.pixels, other.test.pixels)
    counts = torch.bincount(one.test.labels)
    assert int(counts.max() - counts.min()) <= 2
    images, labels = one.batch(one.train, torch.tensor([5, 3]))
    assert images.shape == (2, 1, 32, 32)
    assert images.dtype == torch.float32
    assert torch.equal(labels, one.train.labels[torch.tensor([5, 3])])


def test_no_digit_is_in_both_parts() -> None:
    dataset = load_dataset("digits", 28)
    train = {row.numpy().tobytes() for row in dataset.train.pixels.flatten(1)}
    test = {row.numpy().tobytes() for row in dataset.test.pixels.flatten(1)}
    assert not train & test


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_train_and_test_files_are_used_as_such(tmp_path: Path, dot: str, suffix: str) -> None:
    train = write_set(tmp_path, "train", 20, dot=dot, suffix=suffix)
    test = write_set(tmp_path, "t10k", 7, dot=dot, suffix=suffix)
    dataset = load_dataset(tmp_path, 28)
    assert torch.equal(dataset.train.pixels, torch.from_numpy(train))
    assert torch.equal(dataset.test.pixels, torch.from_numpy(test))
    assert dataset.test.labels.tolist() == make_labels(7).tolist()


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_a_single_set_is_split_eighty_to_twenty_in_order(tmp_path: Path, part: str) -> None:
    images = write_set(tmp_path, part, 20)
    dataset = load_dataset(tmp_path, 28)
    assert torch.equal(dataset.train.pixels, torch.from_numpy(images[:16]))
    assert torch.equal(dataset.test.pixels, torch.from_numpy(images[16:]))


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_either_file_finds_its_partner(tmp_path: Path, kind: str) -> None:
    images = write_set(tmp_path, "t10k", 10, suffix=".gz")
    dataset = load_dataset(tmp_path / f"t10k-{kind}-ubyte.gz", 28)
    assert torch.equal(dataset.train.pixels, torch.from_numpy(images[:8]))


def test_a_plain_and_a_gzipped_copy_are_one_set(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 10, suffix=".gz")
    write_set(tmp_path, "train", 10)
    assert len(load_dataset(tmp_path, 28).train) == 8


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 10, suffix=".gz")
    for file in tmp_path.iterdir():
        file.rename(file.with_suffix(""))
    assert len(load_dataset(tmp_path, 28).train) == 8


def test_emnist_is_turned_upright_and_its_letters_are_named(tmp_path: Path) -> None:
    images = make_images(30)
    write_idx(tmp_path / "emnist-letters-train-images-idx3-ubyte", images)
    write_idx(tmp_path / "emnist-letters-train-labels-idx1-ubyte", make_labels(30, 26) + 1)
    dataset = load_dataset(tmp_path, 28)
    assert torch.equal(dataset.train.pixels, torch.from_numpy(images[:24].transpose(0, 2, 1).copy()))
    assert dataset.class_names[1:4] == ("A", "B", "C")
    assert "upright" in dataset.description


def test_of_several_emnist_splits_one_file_says_which(tmp_path: Path) -> None:
    for prefix in ("emnist-digits-", "emnist-letters-"):
        write_set(tmp_path, "train", 10, prefix=prefix)
        write_set(tmp_path, "test", 5, prefix=prefix)
    with pytest.raises(DataError, match=r"several collections here \(emnist-digits, emnist-letters\)"):
        load_dataset(tmp_path, 28)
    dataset = load_dataset(tmp_path / "emnist-letters-train-images-idx3-ubyte", 28)
    assert dataset.name == "emnist-letters"
    assert (len(dataset.train), len(dataset.test)) == (10, 5)


def test_more_than_ten_classes_make_a_wider_model(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", make_images(30))
    write_idx(tmp_path / "train-labels-idx1-ubyte", make_labels(30, 14))
    assert len(load_dataset(tmp_path, 28).class_names) == 14


def test_pixels_become_mean_0_and_variance_1(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 50)
    dataset = load_dataset(tmp_path, 28)
    images, _ = dataset.batch(dataset.train, slice(None))
    assert abs(float(images.double().mean())) < 1e-6
    assert abs(float(images.double().var()) - 1) < 1e-3


def test_lenet_sees_28x28_images_with_a_border_of_background(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 10)
    small, large = load_dataset(tmp_path, 28), load_dataset(tmp_path, 32)
    inner, _ = small.batch(small.test, slice(None))
    outer, _ = large.batch(large.test, slice(None))
    assert torch.equal(outer[:, :, 2:-2, 2:-2], inner)
    background = (torch.tensor(0.0) - large.mean) / large.std
    assert torch.equal(outer[:, :, :2], background.expand(2, 1, 2, 32))


def test_shaken_images_differ_but_repeat() -> None:
    dataset = load_dataset("digits", 32)
    images, _ = dataset.batch(dataset.train, slice(4))
    one, same = (shake(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, same)
    assert one.shape == images.shape
    assert not torch.equal(one, images)
    other = shake(images, torch.Generator().manual_seed(2))
    assert not torch.equal(one, other)


def faulty(fault: str, folder: Path) -> Path:
    """A data path with one thing wrong."""
    write_set(folder, "train", 10)
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    content = images.read_bytes()
    match fault:
        case "no such path":
            return folder / "nothing-here"
        case "empty folder":
            images.unlink()
            labels.unlink()
        case "truncated images":
            images.write_bytes(content[:-1])
        case "truncated header":
            images.write_bytes(content[:10])
        case "three bytes":
            images.write_bytes(content[:3])
        case "too long":
            images.write_bytes(content + b"\0\0")
        case "not idx":
            images.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        case "labels instead of images":
            images.write_bytes(labels.read_bytes())
        case "truncated gzip":
            images.write_bytes(gzip.compress(content)[:-20])
        case "damaged gzip":
            compressed = bytearray(gzip.compress(content))
            compressed[40:60] = bytes(20)
            images.write_bytes(compressed)
        case "fewer labels":
            write_idx(labels, make_labels(9))
        case "no images in it":
            write_idx(images, make_images(0))
            write_idx(labels, make_labels(0))
        case "no labels file":
            labels.unlink()
        case "no images file":
            images.unlink()
        case "one image":
            write_idx(images, make_images(1))
            write_idx(labels, make_labels(1))
        case "one colour":
            write_idx(images, np.zeros((10, 28, 28), np.uint8))
        case "sizes differ":
            write_idx(folder / "t10k-images-idx3-ubyte", make_images(4, size=20))
            write_idx(folder / "t10k-labels-idx1-ubyte", make_labels(4))
        case "a file of another name":
            return images.rename(folder / "handwriting.idx")
        case "a picture":
            picture = folder / "digit.png"
            picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
            return picture
        case _:
            raise AssertionError(fault)
    return folder


FAULTS = {
    "no such path": "no such file or folder",
    "empty folder": "no IDX files here; expected train-images-idx3-ubyte",
    "truncated images": r"truncated: its header promises 10x28x28 = 7,840 bytes, the file has 7,839",
    "truncated header": "truncated: 10 bytes are too few for its header of 16",
    "three bytes": "truncated: 3 bytes are too few for an IDX header",
    "too long": "too long: its header promises 10x28x28 = 7,840 bytes, the file has 7,842",
    "not idx": "not an IDX file of bytes: it starts with 89 50 4e 47",
    "labels instead of images": "holds labels, not images",
    "truncated gzip": "truncated: the gzip stream ends early",
    "damaged gzip": "damaged gzip file",
    "fewer labels": "holds 10 images, but train-labels-idx1-ubyte holds 9 labels",
    "no images in it": "is empty: its header says 0x28x28",
    "no labels file": r"its labels file train-labels-idx1-ubyte \(or .gz\) is not beside it",
    "no images file": r"its images file train-images-idx3-ubyte \(or .gz\) is not beside it",
    "one image": "a single image cannot be split",
    "one colour": "all pixels of the training images have the same value",
    "sizes differ": "the training images and the test images differ in size",
    "a file of another name": "the name does not say which file is its partner",
    "a picture": "not an IDX file of bytes",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_gets_one_line_that_names_it(tmp_path: Path, fault: str) -> None:
    path = faulty(fault, tmp_path)
    with pytest.raises(DataError, match=FAULTS[fault]) as caught:
        load_dataset(path, 28)
    assert "\n" not in str(caught.value)
