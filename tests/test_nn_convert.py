"""Modules are torch's in everything but the kernels, and convert / restore swap them in a living model."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Place
from torch.nn.utils import parametrizations, parametrize, prune

import cnnkernels
from cnnkernels import BackendError, convert, nn, restore, trace, use_backend
from cnnkernels.testing import assert_like_torch

MODULES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "conv": ("Conv2d", (4, 6, 3), {}),
    "conv, every option": (
        "Conv2d",
        (4, 6, (3, 2)),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "bias": False, "dtype": torch.float64},
    ),
    "conv same": ("Conv2d", (4, 6, 3), {"padding": "same"}),
    "conv reflect": ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}),
    "conv circular same": ("Conv2d", (4, 6, (4, 3)), {"padding": "same", "padding_mode": "circular"}),
    "conv replicate": ("Conv2d", (4, 6, 3), {"padding": (2, 1), "padding_mode": "replicate", "stride": 2}),
    "transposed": ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    "max": ("MaxPool2d", (2,), {}),
    "max, every option": (
        "MaxPool2d",
        ((3, 2),),
        {"stride": 2, "padding": 1, "dilation": (1, 2), "return_indices": True, "ceil_mode": True},
    ),
    "avg": ("AvgPool2d", (2,), {}),
    "adaptive avg": ("AdaptiveAvgPool2d", (1,), {}),
    "adaptive avg, a pair": ("AdaptiveAvgPool2d", ((None, 3),), {}),
    "adaptive max": ("AdaptiveMaxPool2d", (4,), {}),
    "adaptive max, every option": ("AdaptiveMaxPool2d", ((12, 1),), {"return_indices": True}),
    "avg, every option": (
        "AvgPool2d",
        ((3, 2),),
        {"stride": (2, 1), "padding": 1, "ceil_mode": True, "count_include_pad": False, "divisor_override": 5},
    ),
}


def _twins(title: str, device: str = "cpu") -> tuple[torch.nn.Module, torch.nn.Module]:
    """Our module and torch's, with the same parameters, loaded from torch's state_dict."""
    name, arguments, options = MODULES[title]
    theirs = getattr(torch.nn, name)(*arguments, **options).to(device)
    ours = getattr(nn, name)(*arguments, **options).to(device)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _input(module: torch.nn.Module) -> torch.Tensor:
    dtype, device = next(((p.dtype, p.device) for p in module.parameters()), (torch.float32, torch.device("cpu")))
    return torch.randn(2, 4, 9, 8, dtype=dtype, device=device)


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("title", MODULES)
def test_module_agrees_with_torch(title: str, place: Place) -> None:
    ours, theirs = _twins(title, place.device)
    x = _input(theirs).to(place.device)
    for input in (x, x[0]):
        with use_backend(place.backend), trace() as launched:
            output = ours(input)
        expected = theirs(input)
        assert type(output) is type(expected)
        assert_like_torch(_first(output), _first(expected))
        torch.testing.assert_close(output, expected)
        assert len(launched) == 1


@pytest.mark.parametrize("title", MODULES)
def test_module_is_torchs_in_everything_else(title: str) -> None:
    ours, theirs = _twins(title)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert set(vars(ours)) == set(vars(theirs))
    ours.backend = "emulator"
    pickled = io.BytesIO()
    torch.save(ours, pickled)
    pickled.seek(0)
    for twin in (copy.deepcopy(ours), torch.load(pickled, weights_only=False)):
        assert type(twin) is type(ours) and twin.backend == "emulator"
        x = _input(ours)
        assert torch.equal(_first(twin(x)), _first(ours(x)))


def test_module_backend_comes_before_the_ambient_one() -> None:
    module, x = nn.MaxPool2d(2), torch.randn(1, 1, 4, 4)
    with trace() as launched, use_backend("emulator"):
        module.backend = "torch"
        module(x)
        assert not module.state_dict()
    assert launched == []
    module.backend = "emulator"
    with trace() as launched:
        module(x)
    assert len(launched) == 1


def test_transposed_output_size() -> None:
    ours, theirs = _twins("transposed")
    ours.backend = "emulator"
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(ours(x, output_size=[10, 9]), theirs(x, output_size=[10, 9]))
    for size in ([20, 9], [9]):
        with pytest.raises(ValueError, match=r"requested|output_size") as raised:
            theirs(x, output_size=size)
        with pytest.raises(ValueError, match=r"requested|output_size") as ours_raised:
            ours(x, output_size=size)
        assert str(ours_raised.value) == str(raised.value)


class _Named(torch.nn.Conv2d):
    """A subclass whose forward is its own business."""


def _model() -> torch.nn.Sequential:
    shared = torch.nn.Conv2d(4, 4, 3, padding=1)
    block = torch.nn.Sequential(shared, torch.nn.ReLU(), shared)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), block, torch.nn.MaxPool2d(2), torch.nn.ConvTranspose2d(4, 3, 2), torch.nn.AvgPool2d(2),
        _Named(3, 3, 1), torch.nn.AdaptiveAvgPool2d(2), torch.nn.LPPool2d(2, 2), torch.nn.Flatten(), torch.nn.LazyLinear(2),
    )  # fmt: skip


def test_convert_swaps_the_classes_and_restore_undoes_it() -> None:
    model, x = _model(), torch.randn(2, 3, 12, 12)
    expected = model(x)
    before = {name: (type(module), id(module)) for name, module in model.named_modules()}
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    keys, text = list(model.state_dict()), repr(model)

    report = convert(model, backend="emulator")
    assert [(row.name, row.type, row.replaced) for row in report.rows] == [
        ("0", "Conv2d", True), ("1.0", "Conv2d", True), ("2", "MaxPool2d", True), ("3", "ConvTranspose2d", True),
        ("4", "AvgPool2d", True), ("5", "_Named", False), ("6", "AdaptiveAvgPool2d", True),
        ("7", "LPPool2d", False),
    ]  # fmt: skip
    assert [type(model[i]) for i in (0, 2, 3, 4)] == [nn.Conv2d, nn.MaxPool2d, nn.ConvTranspose2d, nn.AvgPool2d]
    assert model[1][0] is model[1][2]
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters
    assert list(model.state_dict()) == keys and repr(model) == text
    with trace() as launched:
        torch.testing.assert_close(model(x), expected)
    assert len(launched) == 7

    undone = restore(model)
    assert [row.name for row in undone.replaced] == ["0", "1.0", "2", "3", "4", "6"]
    assert {name: (type(module), id(module)) for name, module in model.named_modules()} == before
    assert not any("backend" in vars(module) for module in model.modules())
    with trace() as launched:
        assert torch.equal(model(x), expected)
    assert launched == []


def test_report_says_why_in_a_table() -> None:
    report = convert(_model())
    reasons = {row.name: row.reason for row in report.kept}
    assert reasons["5"] == f"a subclass of Conv2d ({__name__}._Named): its forward may differ"
    assert reasons["7"] == "no kernels for LPPool2d"
    assert [row.name for row in report.replaced] == ["0", "1.0", "2", "3", "4", "6"]
    lines = str(report).splitlines()
    assert lines[0].split() == ["module", "type", "replaced", "reason"]
    assert lines[1].split() == ["0", "Conv2d", "yes"]
    assert lines[-1] == "6 of 8 convolutions and poolings replaced"
    assert len({line.index("yes") for line in lines if " yes" in line}) == 1  # columns line up


def test_a_report_notes_the_kernels_of_the_last_calls() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2)), torch.nn.AvgPool2d(2)
    )
    report = convert(model, backend="emulator")
    model[2].backend = "torch"
    before = str(report)
    with report.watch() as watched, trace() as launched:
        model(torch.ones(1, 3, 12, 12))
    assert watched is report
    assert list(report.kernels) == ["0", "1.1", "2"]
    assert [*report.kernels["0"], *report.kernels["1.1"]] == launched
    assert report.kernels["2"] == []
    head, conv, _, pool, last = str(report).splitlines()
    assert "kernels of the last call" in head
    assert launched[0] in conv
    assert "torch's operator" in pool
    assert last == before.splitlines()[-1]

    with report.watch(), pytest.raises(RuntimeError):
        model(torch.ones(1, 4, 12, 12))
    assert report.kernels["0"] == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    alone = convert(torch.nn.MaxPool2d(2))
    with pytest.raises(ReferenceError), alone.watch():
        pass


def test_convert_again_changes_the_backend_only() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    convert(model)
    assert model[0].backend is None
    (row,) = convert(model, backend="emulator").rows
    assert row.replaced and row.reason == "is cnnkernels.nn's already"
    assert type(model[0]) is nn.Conv2d and model[0].backend == "emulator"
    with pytest.raises(BackendError, match="no backend 'cudnn'"):
        convert(model, backend="cudnn")


def test_convert_a_single_module() -> None:
    module = torch.nn.AvgPool2d(2)
    (row,) = convert(module).rows
    assert row.name == "" and type(module) is nn.AvgPool2d
    assert "(model)" in str(convert(module))


def test_hooks_and_modes_survive() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)).eval().requires_grad_(False)
    seen: list[str] = []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append("before"))
    model[0].register_forward_hook(lambda module, inputs, output: seen.append("after"))
    convert(model, backend="emulator")
    model(torch.randn(1, 1, 4, 4))
    assert seen == ["before", "after"]
    assert not model[0].training and not model[0].weight.requires_grad


PARAMETRIZATIONS: dict[str, Callable[[torch.nn.Module], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "own": lambda module: parametrize.register_parametrization(module, "weight", torch.nn.Tanh()),
}


@pytest.mark.parametrize("title", PARAMETRIZATIONS)
def test_parametrized_modules_are_converted(title: str) -> None:
    module, x = torch.nn.Conv2d(2, 3, 3).eval(), torch.randn(1, 2, 5, 5)
    PARAMETRIZATIONS[title](module)
    twin = copy.deepcopy(module)
    expected = module(x)
    (row,) = convert(module, backend="emulator").rows
    assert row.replaced and row.reason == "parametrized"
    assert isinstance(module, nn.Conv2d) and not isinstance(twin, nn.Conv2d)  # the copy is not converted along
    with trace() as launched:
        torch.testing.assert_close(module(x), expected)
        assert torch.equal(twin(x), expected)
    assert len(launched) == 1
    restore(module)
    assert not isinstance(module, nn.Conv2d) and torch.equal(module(x), expected)
    convert(module, backend="emulator")
    parametrize.remove_parametrizations(module, "weight")
    assert type(module) is nn.Conv2d
    torch.testing.assert_close(module(x), expected)


def test_pruned_modules_are_converted() -> None:
    module, x = torch.nn.Conv2d(2, 3, 3), torch.randn(1, 2, 5, 5)
    prune.random_unstructured(module, "weight", amount=0.5)
    expected = module(x)
    assert convert(module, backend="emulator").rows[0].replaced
    torch.testing.assert_close(module(x), expected)


def test_modules_whose_forward_is_not_their_classs_are_kept() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.LazyConv1d(2, 3), torch.nn.Conv1d(1, 1, 1))
    model[0].forward = lambda x: x
    reasons = [row.reason for row in convert(model).rows]
    assert "replaced on the instance" in reasons[0]
    assert reasons[1] == "no kernels for LazyConv1d"
    assert reasons[2] == "no kernels for Conv1d"
    assert [type(module) for module in model] == [torch.nn.Conv2d, torch.nn.LazyConv1d, torch.nn.Conv1d]
    assert [row.reason for row in restore(model).rows] == [
        "was never replaced", "was never replaced", "was never replaced"
    ]  # fmt: skip


def _lazy() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.LazyConv2d(4, 3), torch.nn.LazyConvTranspose2d(2, 2, stride=2))


def test_lazy_modules_become_ours_at_their_first_forward() -> None:
    model, x = _lazy(), torch.randn(1, 3, 5, 5)
    keys, text = list(model.state_dict()), repr(model)
    assert [row.replaced for row in convert(model, backend="emulator").rows] == [True, True]
    assert (list(model.state_dict()), repr(model)) == (keys, text)
    pickled = pickle.loads(pickle.dumps(model))
    for each in (model, copy.deepcopy(model), pickled):
        with trace() as launched:
            each(x)
        assert len(launched) == 2, "the first forward is on our kernels already"
        assert [type(module) for module in each] == [nn.Conv2d, nn.ConvTranspose2d]
        assert [module.backend for module in each] == ["emulator"] * 2
    restore(model)
    with trace() as launched:
        expected = model(x)
    assert not launched
    pickled.load_state_dict(model.state_dict())
    torch.testing.assert_close(pickled(x), expected)


def test_lazy_modules_are_restored_before_and_after_their_first_forward() -> None:
    model = _lazy()
    convert(model, backend="emulator")
    assert [row.replaced for row in restore(model).rows] == [True, True]
    assert [type(module) for module in model] == [torch.nn.LazyConv2d, torch.nn.LazyConvTranspose2d]
    with trace() as launched:
        model(torch.randn(1, 3, 5, 5))
    assert not launched
    assert [type(module) for module in model] == [torch.nn.Conv2d, torch.nn.ConvTranspose2d]
    assert [row.replaced for row in convert(model).rows] == [True, True]
    assert [type(module) for module in model] == [nn.Conv2d, nn.ConvTranspose2d]


def test_a_state_dict_loads_into_a_lazy_module() -> None:
    model, filled = _lazy(), _lazy()
    filled(torch.randn(1, 3, 5, 5))
    convert(model)
    model.load_state_dict(filled.state_dict())
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(model(x), filled(x))


def test_training_a_converted_model_follows_torch() -> None:
    """Ten steps of the same model on both: losses agree to rounding."""
    torch.manual_seed(1)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.MaxPool2d(2), torch.nn.Tanh(), torch.nn.Conv2d(4, 4, 3, padding="same"),
        torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(36, 3),
    ).double()  # fmt: skip
    ours = copy.deepcopy(plain)
    assert len(convert(ours, backend="emulator").replaced) == 4
    x, target = torch.randn(8, 1, 14, 14, dtype=torch.float64), torch.randint(3, (8,))
    losses = []
    for model in (plain, ours):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        losses.append([])
        for _ in range(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0]  # so that the updates count
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-9, atol=0)


def test_the_namespace_is_complete() -> None:
    assert set(cnnkernels.nn.__all__) == {
        "Conv2d", "ConvTranspose2d", "LazyConv2d", "LazyConvTranspose2d", "MaxPool2d", "AvgPool2d", "AdaptiveMaxPool2d",
        "AdaptiveAvgPool2d",
    }  # fmt: skip
