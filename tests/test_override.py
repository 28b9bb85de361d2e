"""override(): torch.nn.functional's convolutions and poolings on our kernels, without a change to what calls them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import max_pool2d as imported_by_name

import cnnkernels
from cnnkernels import BackendError, override, trace

CALLS: dict[str, Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]] = {
    "conv2d": lambda x: F.conv2d(x, torch.ones(2, 3, 3, 3), torch.ones(2), padding=1),
    "torch.conv2d": lambda x: torch.conv2d(x, torch.ones(2, 3, 3, 3), stride=2),
    "conv2d same": lambda x: F.conv2d(x, torch.ones(2, 3, 3, 3), padding="same"),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 2, 2), stride=2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool2d by name": lambda x: imported_by_name(x, 3, stride=2, padding=1, ceil_mode=True),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "max_pool2d indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "max_pool2d_with_indices": lambda x: F.max_pool2d_with_indices(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive_max_pool2d indices": lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True),
    "unbatched": lambda x: F.max_pool2d(x[0], 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_function_runs_on_our_kernels(name: str) -> None:
    x = torch.randint(-8, 9, (2, 3, 8, 10)).float()
    wanted = CALLS[name](x)
    with override("emulator"), trace() as launched:
        got = CALLS[name](x)
    assert launched, "no kernel of ours ran"
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    with trace() as launched:
        CALLS[name](x)
    assert not launched, "over with the block"


class Functional(nn.Module):
    """A model that pools by functions, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_a_model_gives_torchs_results_and_gradients() -> None:
    torch.manual_seed(0)
    model, x = Functional(), torch.randn(2, 3, 8, 8)
    before = dict(model.named_modules())
    wanted = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    with override("emulator"):
        loss = model(x).square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, list(model.parameters())), wanted)
    assert {name: type(module) for name, module in model.named_modules()} == {n: type(m) for n, m in before.items()}


def test_modules_that_are_converted_keep_their_own_backend() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    cnnkernels.convert(model[0], backend="torch")
    with override("emulator"), trace() as launched:
        model(torch.ones(1, 3, 8, 8))
    assert [name.split("_")[0] for name in launched] == ["pool2d"]


def test_the_innermost_block_decides() -> None:
    x = torch.ones(1, 1, 4, 4)
    with override("emulator"):
        with override("torch"), trace() as inside:
            F.max_pool2d(x, 2)
        with trace() as outside:
            F.max_pool2d(x, 2)
    assert not inside
    assert outside


def test_the_ambient_backend_is_in_charge_where_none_is_named() -> None:
    x = torch.ones(1, 1, 4, 4)
    with override():
        with trace() as ambient:
            F.max_pool2d(x, 2)
        with cnnkernels.use_backend("emulator"), trace() as named:
            F.max_pool2d(x, 2)
    assert not ambient, "auto, on a CPU: torch"
    assert named


def test_errors_are_torchs() -> None:
    x, w = torch.ones(1, 3, 4, 4), torch.ones(2, 4, 3, 3)
    with pytest.raises(RuntimeError) as wanted:
        F.conv2d(x, w)
    with override("emulator"), pytest.raises(RuntimeError) as got:
        F.conv2d(x, w)
    assert str(got.value) == str(wanted.value)
    with pytest.raises(BackendError):
        override("cudnn")


def test_other_functions_and_other_threads_are_left_alone() -> None:
    seen: list[list[str]] = []

    def elsewhere() -> None:
        with trace() as launched:
            F.max_pool2d(torch.ones(1, 1, 4, 4), 2)
        seen.append(list(launched))

    with override("emulator"), trace() as launched:
        F.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
        F.max_pool3d(torch.ones(1, 1, 4, 4, 4), 2)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert not launched
    assert seen == [[]]


def test_transforms() -> None:
    torch.manual_seed(0)
    model, x = Functional(), torch.randn(3, 3, 8, 8)
    parameters = dict(model.named_parameters())

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(model, values, image[None]).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    wanted = each(parameters, x)
    with override("emulator"), trace() as launched:
        got = each(parameters, x)
    assert launched
    torch.testing.assert_close(got, wanted)


def test_a_compiled_model_needs_no_break() -> None:
    torch.manual_seed(0)
    model, x = Functional(), torch.randn(2, 3, 8, 8)
    wanted = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with override("emulator"), trace() as launched:
        got = compiled(x)
    assert launched
    torch.testing.assert_close(got, wanted)
    with trace() as launched:
        torch.testing.assert_close(compiled(x), wanted)
    assert not launched, "compiled again outside"
