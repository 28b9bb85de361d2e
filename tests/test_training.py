"""Training: the same losses from the same seed, on any backend, and what a run leaves behind."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Place, compiled_kernels_alone
from torch import nn

from cnnkernels.data import DataError, Dataset, load_dataset
from cnnkernels.files import replacing
from cnnkernels.models import MODELS
from cnnkernels.plots import plot_confusion, plot_curves, plot_features
from cnnkernels.training import (
    Diverged,
    History,
    Recipe,
    build_model,
    evaluate,
    input_size,
    interruptible,
    least_images,
    steps_per_epoch,
    train,
)
from cnnkernels.training_files import load_checkpoint, save_checkpoint, save_metrics

# Two fp32 trainings that differ in the order of their sums stay this close for their first steps.
CLOSE = 1e-4

# What each model is built with here: a narrow ResNet is a ResNet, and quick.
ARGUMENTS: dict[str, dict[str, Any]] = {"lenet5": {}, "mnistnet": {}, "resnet18": {"width": 4}}


def mnist_folder() -> Path:
    """Where MNIST's files are: $CNNKERNELS_DATA, or shared/data/mnist beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("CNNKERNELS_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"MNIST's files are not at {folder}; set CNNKERNELS_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", 32)


def losses(model_name: str, dataset: Dataset, recipe: Recipe, steps: int, device: str = "cpu", **model) -> list[float]:
    net = build_model(model_name, recipe, len(dataset.class_names), **ARGUMENTS[model_name], **model).to(device)
    return [step.loss for step in train(net, dataset, recipe, device=device, max_steps=steps).steps]


def largest_difference(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@compiled_kernels_alone
@pytest.mark.parametrize("model_name", MODELS)
def test_the_same_seed_gives_the_same_losses_bit_for_bit(model_name: str, place: Place) -> None:
    dataset = load_dataset("digits", MODELS[model_name].input_size)
    recipe = Recipe(epochs=1, seed=5, distort=True)
    one, other = (losses(model_name, dataset, recipe, 8, place.device, backend=place.backend) for _ in range(2))
    assert one == other
    different = losses(
        model_name, dataset, Recipe(epochs=1, seed=6, distort=True), 8, place.device, backend=place.backend
    )
    assert one != different


@compiled_kernels_alone
@pytest.mark.parametrize(
    ("model_name", "batch", "steps"), [("lenet5", 32, 25), ("mnistnet", 32, 25), ("resnet18", 16, 10)]
)
def test_losses_follow_plain_torch(model_name: str, batch: int, steps: int, place: Place) -> None:
    dataset = load_dataset("digits", input_size(model_name))
    recipe = Recipe(epochs=14, batch_size=batch, distort=True)
    ours = losses(model_name, dataset, recipe, steps, place.device, backend=place.backend)
    plain = losses(model_name, dataset, recipe, steps, place.device, layers=nn)
    assert largest_difference(ours, plain) < CLOSE
    assert plain[-1] < plain[0]


@compiled_kernels_alone
def test_lenet_on_mnist_follows_plain_torch_for_100_steps(place: Place) -> None:
    dataset = load_dataset(mnist_folder(), 32)
    recipe = Recipe(epochs=Recipe.default_epochs(len(dataset.train)))
    ours = losses("lenet5", dataset, recipe, 100, place.device, backend=place.backend)
    plain = losses("lenet5", dataset, recipe, 100, place.device, layers=nn)
    assert largest_difference(ours, plain) < CLOSE
    assert plain[-1] < plain[0] / 1.5


@compiled_kernels_alone
def test_resnet18_on_mnist_follows_plain_torch_for_50_steps(place: Place) -> None:
    """Within 1e-3; 1e-6 was seen.

    That needs steps which keep every ReLU on its side of 0. Batch 16 in a run of four epochs does: twenty runs of torch
    alone, each with other last bits in its initial weights, stayed within 2e-6 of the first. Larger steps do not: with a
    batch of 32 such runs of torch differ by 0.07.
    """
    dataset = load_dataset(mnist_folder(), 32)
    recipe = Recipe(Recipe.default_epochs(len(dataset.train)), batch_size=16)
    ours = losses("resnet18", dataset, recipe, 50, place.device, backend=place.backend)
    plain = losses("resnet18", dataset, recipe, 50, place.device, layers=nn)
    assert largest_difference(ours, plain) < 1e-3
    assert sum(plain[-5:]) / 5 < plain[0] - 0.1


def test_mnist_is_split_into_8000_and_2000() -> None:
    folder = mnist_folder()
    if list(folder.glob("train-images*")):
        pytest.skip(f"{folder} has MNIST's training files, which leaves nothing to split")
    dataset = load_dataset(folder, 32)
    assert (len(dataset.train), len(dataset.test)) == (8000, 2000)
    assert dataset.train.labels[:4].tolist() == [7, 2, 1, 0]


def test_backend_torch_is_plain_torch(digits: Dataset) -> None:
    recipe = Recipe(epochs=1)
    ours = losses("lenet5", digits, recipe, 10, backend="torch")
    assert ours == losses("lenet5", digits, recipe, 10, layers=nn)


def test_digits_are_learned(digits: Dataset) -> None:
    images = len(digits.train)
    recipe = Recipe(Recipe.default_epochs(images), distort=Recipe.default_distort(images))
    model = build_model("lenet5", recipe, 10, layers=nn)
    history = train(model, digits, recipe)
    assert history.epochs[-1].test_accuracy >= 0.97
    assert history.epochs[-1].test_accuracy == evaluate(model, digits, digits.test).accuracy
    assert len(history.steps) == recipe.epochs * steps_per_epoch(digits, recipe)


def test_defaults_by_number_of_images() -> None:
    assert [Recipe.default_epochs(images) for images in (1437, 8000, 60_000, 10**6)] == [14, 4, 1, 1]
    assert [Recipe.default_distort(images) for images in (1437, 8000)] == [True, False]


def test_the_learning_rate_rises_and_falls(digits: Dataset) -> None:
    recipe = Recipe(epochs=2, batch_size=144, learning_rate=0.01)
    history = train(build_model("lenet5", recipe, 10, layers=nn), digits, recipe)
    rates = [step.learning_rate for step in history.steps]
    assert rates.index(max(rates)) == 8
    assert max(rates) == 0.01
    assert rates[0] == pytest.approx(0.0004)
    assert rates[-1] < 0.001


def test_evaluation_counts_every_image_once(digits: Dataset) -> None:
    result = evaluate(build_model("lenet5", Recipe(1), 10, layers=nn), digits, digits.test)
    assert torch.equal(result.confusion.sum(1), torch.bincount(digits.test.labels))
    assert result.accuracy == int(result.confusion.trace()) / 360


class Checkpoints:
    """Writes the last checkpoint of a run, and reads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint.pt"

    def __call__(self, state: dict[str, Any], history: History) -> None:
        save_checkpoint(self.path, state, {"steps": len(history.steps)})

    def load(self) -> dict[str, Any]:
        return load_checkpoint(self.path)


@pytest.mark.parametrize("model_name", ARGUMENTS)
def test_a_checkpoint_loads_into_plain_torch(tmp_path: Path, model_name: str) -> None:
    dataset = load_dataset("digits", input_size(model_name))
    recipe, arguments = Recipe(epochs=1, batch_size=16), ARGUMENTS[model_name]
    model = build_model(model_name, recipe, 10, backend="emulator", **arguments)
    train(model, dataset, recipe, max_steps=3, on_checkpoint=Checkpoints(tmp_path))
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["meta"] == {"steps": 3}
    plain = build_model(model_name, Recipe(epochs=1, seed=1), 10, layers=nn, **arguments)
    plain.load_state_dict(checkpoint["state_dict"], strict=True)
    assert type(plain.conv1) is nn.Conv2d
    ours, theirs = (evaluate(net, dataset, dataset.test.select(slice(60))) for net in (model, plain))
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)


def in_bits(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the times in it; tensors as bytes, so that == compares bits."""
    run = dict(checkpoint["run"], seconds=None, epoch=checkpoint["run"]["epoch"][:3])
    run["epochs"] = [epoch[:-1] for epoch in run["epochs"]]

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype, value.shape, value.numpy().tobytes()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(checkpoint | {"run": run})


@pytest.mark.parametrize("model_name", ARGUMENTS)
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(tmp_path: Path, model_name: str) -> None:
    """Broken off after any step: within an epoch, at its end, before and after its test."""
    whole = load_dataset("digits", input_size(model_name))
    dataset = replace(whole, train=whole.train.select(slice(40)), test=whole.test.select(slice(20)))
    recipe = Recipe(epochs=2, batch_size=16, distort=True)
    checkpoints = Checkpoints(tmp_path)

    done: list[int] = []

    def run(**arguments: Any) -> dict[str, Any]:
        done.clear()
        model = build_model(model_name, recipe, 10, layers=nn, **ARGUMENTS[model_name])
        train(
            model,
            dataset,
            recipe,
            on_checkpoint=checkpoints,
            on_step=lambda step: done.append(step.step),
            **arguments,
        )
        return checkpoints.load()

    unbroken = run()
    assert unbroken["meta"]["steps"] == 6
    for steps in range(1, 6):
        broken = run(max_steps=steps)
        assert broken["meta"]["steps"] == steps
        assert in_bits(run(resume=broken)) == in_bits(unbroken), f"broken off after step {steps}"
        assert done == list(range(steps + 1, 7)), "no step is done again"
    assert in_bits(run(resume=unbroken)) == in_bits(unbroken), "nothing left to do"
    assert not done


def test_checkpoints_come_every_so_many_steps_after_each_epoch_and_at_the_end(digits: Dataset) -> None:
    seen: list[tuple[int, int]] = []

    def remember(state: dict[str, Any], history: History) -> None:
        seen.append((len(history.steps), len(history.epochs)))

    recipe = Recipe(epochs=2, batch_size=300)
    model = build_model("lenet5", recipe, 10, layers=nn)
    train(model, digits, recipe, on_checkpoint=remember, checkpoint_every=3, max_steps=8)
    assert seen == [(3, 0), (5, 1), (6, 1), (8, 1)]


@pytest.mark.parametrize("fault", ["cut off", "text", "weights alone", "a folder"])
def test_what_is_no_checkpoint_gets_one_line(tmp_path: Path, digits: Dataset, fault: str) -> None:
    path = tmp_path / "checkpoint.pt"
    model = build_model("lenet5", Recipe(1), 10, layers=nn)
    train(model, digits, Recipe(1), max_steps=1, on_checkpoint=Checkpoints(tmp_path))
    match fault:
        case "cut off":
            path.write_bytes(path.read_bytes()[:-1000])
        case "text":
            path.write_text("no checkpoint")
        case "weights alone":
            torch.save(model.state_dict(), path)
        case "a folder":
            path.unlink()
            path.mkdir()
    with pytest.raises(DataError, match=r"checkpoint\.pt: ") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_no_batch_is_too_small_for_batchnorm(digits: Dataset) -> None:
    """Of 33 images in batches of 16 one would be left, and BatchNorm cannot normalise a single value."""
    dataset = replace(digits, train=digits.train.select(slice(33)), test=digits.test.select(slice(2)))
    recipe = Recipe(epochs=1, batch_size=16)
    model = build_model("resnet18", recipe, 10, layers=nn, width=4)
    sizes: list[int] = []
    model.conv1.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert len(train(model, dataset, recipe).steps) == steps_per_epoch(dataset, recipe, least_images(model)) == 2
    assert sizes == [16, 17, 2]
    assert steps_per_epoch(dataset, recipe) == 3
    with pytest.raises(ValueError, match="BatchNorm needs at least 2 images in a batch"):
        train(model, dataset, Recipe(epochs=1, batch_size=1))


def test_a_run_can_be_stopped_between_two_steps(digits: Dataset) -> None:
    seen: list[int] = []
    model = build_model("lenet5", Recipe(1), 10, layers=nn)
    history = train(model, digits, Recipe(1), on_step=lambda step: seen.append(step.step), stop=lambda: len(seen) == 4)
    assert history.interrupted
    assert [step.step for step in history.steps] == seen == [1, 2, 3, 4]
    assert history.epochs == []


def test_ctrl_c_is_held_back_once() -> None:
    with interruptible() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), 2)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), 2)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), 2)


def test_divergence_is_an_error(digits: Dataset) -> None:
    recipe = Recipe(epochs=1)
    model = build_model("lenet5", recipe, 10, layers=nn)
    with torch.no_grad():
        model.fc3.bias[3] = torch.inf
    with pytest.raises(Diverged, match="the loss of step 1 is nan: try a smaller learning rate"):
        train(model, digits, recipe)


def test_metrics_hold_every_step(tmp_path: Path, digits: Dataset) -> None:
    recipe = Recipe(epochs=1, batch_size=144)
    model = build_model("lenet5", recipe, 10, layers=nn)
    history = train(model, digits, recipe)
    save_metrics(tmp_path, history, evaluate(model, digits, digits.test), {"seed": 0})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [step["loss"] for step in metrics["steps"]] == [step.loss for step in history.steps]
    assert metrics["test"]["accuracy"] == history.epochs[0].test_accuracy
    assert sum(map(sum, metrics["confusion"])) == 360
    rows = (tmp_path / "steps.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,loss,learning_rate"
    assert [float(row.split(",")[2]) for row in rows[1:]] == [step.loss for step in history.steps]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "before"
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_pictures_are_drawn_for_a_whole_run_and_for_a_broken_one(tmp_path: Path, digits: Dataset) -> None:
    import matplotlib.image

    recipe = Recipe(epochs=1, batch_size=144)
    model = build_model("lenet5", recipe, 10, layers=nn)
    history = train(model, digits, recipe)
    plot_curves(tmp_path / "curves.png", history, "a run")
    plot_curves(tmp_path / "broken.png", History(history.steps[:3], [], interrupted=True), "a broken run")
    plot_confusion(tmp_path / "confusion.png", evaluate(model, digits, digits.test), digits.class_names, "confusion")
    plot_features(tmp_path / "features.png", model.conv1, digits.batch(digits.test, slice(3))[0], "features")
    for name in ("curves", "broken", "confusion", "features"):
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert min(picture.shape[:2]) > 400
        assert float(picture[..., :3].std()) > 0.02


def test_a_model_built_from_plain_layers_refuses_a_backend() -> None:
    with pytest.raises(ValueError, match="without cnnkernels layers"):
        MODELS["lenet5"](layers=nn, backend="emulator")
