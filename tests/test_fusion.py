"""What follows a convolution in its kernel: functional.conv2d(activation=, residual=, norm=), and convert(fuse=True)."""

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import Place
from torch import Tensor, nn

import cnnkernels
from cnnkernels import functional, models
from cnnkernels.convert import Report
from cnnkernels.epilogue import ACTIVATIONS
from cnnkernels.explain import trace
from cnnkernels.functional import Norm
from cnnkernels.testing.oracles import assert_close_to_fp64

FORMATS = (torch.contiguous_format, torch.channels_last)


def random(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm_of(channels: int, dtype: torch.dtype = torch.float32) -> Norm:
    mean, variance, weight, bias = (random(channels, dtype=dtype, seed=s) for s in range(10, 14))
    return Norm(mean, variance.abs() + 0.5, weight, bias)


def close(got: Tensor, expected: Tensor) -> None:
    """Within what fp32 sums of a hundred terms and one exponential may differ by."""
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6 * expected.abs().max().item())


def with_statistics(model: nn.Module) -> nn.Module:
    """In eval mode, with running statistics that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            channels = module.num_features
            module.running_mean.copy_(random(channels, seed=1) * 0.1)
            module.running_var.copy_(random(channels, seed=2).abs() + 0.5)
    return model.eval()


# --- functional.conv2d.


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_a_fused_call_rounds_before_the_residual_and_at_the_end(
    activation: str | None, form: torch.memory_format
) -> None:
    x = random(2, 8, 6, 7, dtype=torch.bfloat16).contiguous(memory_format=form)
    w, b = random(12, 8, 3, 3, dtype=torch.bfloat16, seed=1), random(12, dtype=torch.bfloat16, seed=2)
    residual = random(2, 12, 6, 7, dtype=torch.bfloat16, seed=3).contiguous(memory_format=form)
    z = functional.conv2d(x, w, b, padding=1, backend="emulator") + residual.float()  # not rounded in between
    expected = z if activation is None else ACTIVATIONS[activation](z, 0.01)
    with trace() as launched:
        y = functional.conv2d(x, w, b, padding=1, activation=activation, residual=residual, backend="emulator")
    assert all("conv2d" in kernel for kernel in launched)
    assert y.is_contiguous(memory_format=form)
    if activation in (None, "relu", "relu6", "leaky_relu"):
        assert torch.equal(y, expected.to(torch.bfloat16))
    else:  # another exponential
        eps = torch.finfo(torch.bfloat16).eps
        # gelu's 1 + erf(z) cancels where z is negative.
        torch.testing.assert_close(y.float(), expected, rtol=eps / 2 * 1.01, atol=2**-22 * float(z.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_special_values_are_torchs(activation: str, dtype: torch.dtype) -> None:
    """Through a filter of one: NaN, infinities, zeros, the corners of each function, and what overflows its exponential."""
    corners = [0.0, -0.0, 3.0, -3.0, 6.0, 6.5, -6.5, 1e-30, -1e-30, 90.0, -90.0, 1e30, -1e30]
    x = torch.tensor([*corners, torch.inf, -torch.inf, torch.nan], dtype=dtype).view(1, 1, 4, 4)
    y = functional.conv2d(x, torch.ones(1, 1, 1, 1, dtype=dtype), activation=activation, backend="emulator")
    expected = ACTIVATIONS[activation](x.double(), 0.01).to(dtype)
    eps = torch.finfo(torch.float32 if dtype.itemsize < 8 else dtype).eps
    torch.testing.assert_close(y, expected, rtol=4 * eps + torch.finfo(dtype).eps, atol=8 * eps, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", ["all", "without weight and bias", "float32"])
def test_batch_norm_with_running_statistics(dtype: torch.dtype, given: str) -> None:
    x, w, b = random(2, 5, 6, 7, dtype=dtype), random(6, 5, 3, 3, dtype=dtype, seed=1), random(6, dtype=dtype, seed=2)
    norm = norm_of(6, torch.float32 if given == "float32" and dtype.itemsize == 2 else dtype)
    if given == "without weight and bias":
        norm = norm._replace(weight=None, bias=None)
    with trace() as launched:
        y = functional.conv2d(x, w, b, norm=norm, activation="relu", backend="emulator")
    assert all("conv2d" in kernel for kernel in launched)
    n = Norm(*(value.double() if isinstance(value, Tensor) else value for value in norm))
    z = F.conv2d(x.double(), w.double(), b.double())
    z = F.batch_norm(z, n.running_mean, n.running_var, n.weight, n.bias, False, 0.0, n.eps)
    factor = (1 if n.weight is None else n.weight.abs()) / (n.running_var + n.eps).sqrt()
    magnitude = F.conv2d(x.double().square(), w.double().square()).sqrt() * factor.view(-1, 1, 1)
    magnitude += ((b.double().abs() + n.running_mean.abs()) * factor).view(-1, 1, 1)
    assert_close_to_fp64(y, z.relu(), 45, magnitude=magnitude)


def test_unbatched_images_and_padding_modes() -> None:
    x, w, residual = random(3, 6, 6), random(4, 3, 3, 3, seed=1), random(4, 6, 6, seed=2)
    options = {"padding": 1, "padding_mode": "reflect", "activation": "silu", "residual": residual}
    y = functional.conv2d(x, w, backend="emulator", **options)
    close(y, functional.conv2d(x, w, backend="torch", **options))
    assert y.shape == (4, 6, 6)


@pytest.mark.parametrize("residual", [(1, 4, 1, 1), (2, 4, 6, 6), "transposed", "double"])
def test_a_residual_that_the_kernel_cannot_read_is_added_afterwards(residual: object) -> None:
    x, w = random(2, 3, 6, 6), random(4, 3, 3, 3, seed=1)
    if residual == "transposed":
        added = random(2, 4, 6, 6, seed=2).transpose(2, 3)
    elif residual == "double":
        added = random(2, 4, 6, 6, seed=2).double()
    else:
        added = random(*residual, seed=2)
    y = functional.conv2d(x, w, padding=1, residual=added, activation="relu", backend="emulator")
    expected = F.relu(F.conv2d(x, w, padding=1) + added)
    assert y.dtype == expected.dtype
    close(y, expected)


def test_gradients_of_every_order_go_through() -> None:
    x, w, b = (random(*size, seed=i).double() for i, size in enumerate(((1, 2, 4, 4), (3, 2, 3, 3), (3,))))
    residual, norm = random(1, 3, 4, 4, seed=3).double(), norm_of(3, torch.float64)

    def fused(x: Tensor, w: Tensor, b: Tensor, residual: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return functional.conv2d(
            x, w, b, padding=1, activation="silu", residual=residual,
            norm=norm._replace(weight=scale, bias=shift), backend="emulator",
        )  # fmt: skip

    inputs = [t.clone().requires_grad_() for t in (x, w, b, residual, norm.weight, norm.bias)]
    assert torch.autograd.gradcheck(fused, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(fused, inputs, fast_mode=True)


LINES = ("relu", "relu6", "leaky_relu")  # activations whose gradient can be told from what they gave


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("activation", [None, *LINES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_of_straight_lines_is_fused_under_gradients_too(
    place: Place, dtype: torch.dtype, activation: str | None, form: torch.memory_format
) -> None:
    """The forward is the one without gradients, bit for bit, and the backward that of the same roundings by torch."""
    x, w, b, residual = (
        random(*size, dtype=dtype, seed=seed).to(place.device) * 2
        for seed, size in enumerate(((2, 8, 5, 6), (12, 8, 3, 3), (12,), (2, 12, 5, 6)))
    )
    x, residual = x.contiguous(memory_format=form), residual.contiguous(memory_format=form)
    options = {"padding": 1, "backend": place.backend}
    plain = functional.conv2d(x, w, b, activation=activation, residual=residual, **options)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, w, b, residual)]
    with trace() as launched:
        y = functional.conv2d(*leaves[:3], activation=activation, residual=leaves[3], **options)
    assert torch.equal(y, plain)
    assert len([name for name in launched if not name.startswith(("conv2d_pack_", "conv2d_sum_"))]) == 1
    gradient = random(*y.shape, dtype=dtype, seed=9).to(place.device).contiguous(memory_format=form)
    with trace() as launched:
        y.backward(gradient)
    kernel = "triton_" * (place.backend == "triton") + "conv2d_activation_grad_" + {2: "bf16", 4: "f32"}[dtype.itemsize]
    assert [name for name in launched if "activation" in name] == [kernel] * (activation is not None)
    z = y.detach().clone().requires_grad_()
    (before,) = (
        (gradient,) if activation is None else torch.autograd.grad(ACTIVATIONS[activation](z, 0.01), z, gradient)
    )
    assert torch.equal(leaves[3].grad, before)
    before = before.contiguous(memory_format=form)  # sums of another layout's kernels round otherwise
    for leaf, expected in zip(
        leaves,
        torch.autograd.grad(functional.conv2d(leaves[0], leaves[1], leaves[2], **options), leaves[:3], before),
        strict=False,
    ):
        assert torch.equal(leaf.grad, expected)


@pytest.mark.parametrize("activation", LINES)
def test_second_derivatives_of_fused_activations(activation: str) -> None:
    x, w, b, residual = (
        random(*size, seed=i).double().requires_grad_()
        for i, size in enumerate(((1, 2, 4, 4), (3, 2, 3, 3), (3,), (1, 3, 4, 4)))
    )

    def fused(*tensors: Tensor) -> Tensor:
        return functional.conv2d(
            *tensors[:3], padding=1, activation=activation, residual=tensors[3], backend="emulator"
        )

    assert torch.autograd.gradcheck(fused, (x, w, b, residual), fast_mode=True)
    assert torch.autograd.gradgradcheck(fused, (x, w, b, residual), fast_mode=True)
    y = fused(x, w, b, residual)
    batched = torch.autograd.grad(y, (x, w), torch.ones(2, *y.shape).double(), is_grads_batched=True)
    for several, one in zip(batched, torch.autograd.grad(fused(x, w, b, residual).sum(), (x, w)), strict=True):
        close(several, one.expand_as(several))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", LINES)
def test_activation_grad_of_special_values_is_torchs(activation: str, dtype: torch.dtype) -> None:
    special = torch.tensor([0.0, -0.0, 6.0, 5.5, -1.0, 1e-5, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    y, dy = (tensor.reshape(1, 9, 3, 3).clone() for tensor in torch.meshgrid(special, special, indexing="ij"))
    aten = torch.ops.aten
    expected = {
        "relu": lambda: aten.threshold_backward(dy, y, 0),
        # As torch has it on a GPU, where a NaN is on neither side; on a CPU its vectors have it outside.
        "relu6": lambda: torch.where((y <= 0) | (y >= 6), torch.zeros_like(dy), dy),
        "leaky_relu": lambda: aten.leaky_relu_backward(dy, y, 0.25, True),
    }[activation]()
    for last in (False, True):
        got = torch.ops.cnnkernels.conv2d_activation_grad(dy, y, activation, 0.25, last)
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(RuntimeError, match="the gradient of an activation can be told from its result for relu"):
        torch.ops.cnnkernels.conv2d_activation_grad(dy, y, "silu", 0.25, False)
    with pytest.raises(RuntimeError, match=r"not for 'leaky_relu' with -0\.5"):
        torch.ops.cnnkernels.conv2d_activation_grad(dy, y, "leaky_relu", -0.5, False)


def test_transforms_of_torch_func() -> None:
    x, w, residual = random(3, 1, 2, 5, 5), random(4, 2, 3, 3, seed=1), random(3, 1, 4, 3, 3, seed=2)

    def one(x: Tensor, residual: Tensor, backend: str) -> Tensor:
        return functional.conv2d(x, w, residual=residual, activation="gelu", backend=backend)

    batched = torch.vmap(lambda x, r: one(x, r, "emulator"))(x, residual)
    close(batched, torch.stack([one(*pair, "torch") for pair in zip(x, residual, strict=True)]))
    _, tangent = torch.func.jvp(lambda x: one(x, residual[0], "emulator"), (x[0],), (x[1],))
    _, expected = torch.func.jvp(lambda x: one(x, residual[0], "torch"), (x[0],), (x[1],))
    close(tangent, expected)


@pytest.mark.parametrize("backend", ["emulator", "torch"])
def test_bad_arguments_launch_nothing(backend: str) -> None:
    x, w = random(1, 3, 5, 5), random(4, 3, 3, 3)
    with trace() as launched:
        with pytest.raises(ValueError, match=r"activation must be None or one of relu, .* not 'tanh'"):
            functional.conv2d(x, w, activation="tanh", backend=backend)
        with pytest.raises(RuntimeError, match=r"size of tensor a \(3\) must match the size of tensor b \(5\)"):
            functional.conv2d(x, w, residual=x, backend=backend)
        with pytest.raises(RuntimeError, match="running_mean should contain 4 elements not 3"):
            functional.conv2d(x, w, norm=norm_of(3), backend=backend)
    assert launched == []


def test_the_operator_refuses_what_its_kernels_cannot_read() -> None:
    x, w = random(1, 3, 5, 5), random(4, 3, 3, 3)
    rest = (0.0, None, "none", 0.0, (3, 3), (1, 1), (0, 0), (1, 1), 1, False)

    def call(residual: Tensor | None = None, mean: Tensor | None = None, activation: str = "none") -> Tensor:
        return torch.ops.cnnkernels.conv2d_fused(
            x, w, None, mean, None, None, None, 0.0, residual, activation, *rest[3:]
        )  # fmt: skip

    with pytest.raises(RuntimeError, match="residual does not lie as the output does"):
        call(random(1, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    with pytest.raises(RuntimeError, match="differ in shape"):
        call(random(1, 4, 3, 2))
    with pytest.raises(RuntimeError, match="mean and variance belong together"):
        call(mean=random(4))
    with pytest.raises(RuntimeError, match="activation must be none, relu"):
        call(activation="tanh")


def test_explain_says_where_what_follows_runs() -> None:
    x, w = random(1, 3, 5, 5), random(4, 3, 3, 3)
    fused = cnnkernels.explain(functional.conv2d, x, w, activation="relu", backend="emulator")
    assert fused.note == "what follows runs in the forward's kernel"
    w.requires_grad_()
    trained = cnnkernels.explain(functional.conv2d, x, w, activation="relu", backend="emulator")
    assert trained.note == fused.note
    assert [plan.name for plan in trained.passes] == ["fprop", "dgrad", "wgrad", "activation_grad"]
    apart = cnnkernels.explain(functional.conv2d, x, w, activation="silu", backend="emulator")
    assert apart.note.endswith("torch's operators: a gradient needs the values in between")
    assert [plan.name for plan in apart.passes] == ["fprop", "dgrad", "wgrad"]


# --- convert(fuse=True).


class Block(nn.Module):
    """A residual block with a choice of what it does."""

    def __init__(self, activation: nn.Module, swapped: bool = False, inplace: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)
        self.activation, self.swapped, self.inplace = activation, swapped, inplace

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.inplace:
            out += x
        else:
            out = x + out if self.swapped else out + x
        return F.relu(out)


def converted(model: nn.Module) -> tuple[nn.Module, Report]:
    report = cnnkernels.convert(model, backend="emulator", fuse=True)
    return model, report


@pytest.mark.parametrize(
    "activation", [nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Hardswish()]
)  # fmt: skip
def test_a_block_becomes_two_kernels(activation: nn.Module) -> None:
    model, x = with_statistics(Block(activation, inplace=True)), random(2, 4, 5, 5)
    expected = model(x)
    model, report = converted(model)
    assert [row.fused.count(",") for row in report.fused] == [1, 2]
    with torch.no_grad(), trace() as launched:
        close(model(x), expected)
    assert len(launched) == 2
    close(model(x), expected)  # with gradients: the same numbers by separate operators


@pytest.mark.parametrize("block", [Block(nn.ReLU(), swapped=True), Block(nn.Tanh())])
def test_forms_of_the_addition_and_what_no_kernel_knows(block: nn.Module) -> None:
    model, x = with_statistics(block), random(1, 4, 5, 5)
    expected = model(x)
    model, report = converted(model)
    with torch.no_grad():
        close(model(x), expected)
    assert [row.fused for row in report.fused][1] == "bn2, residual, relu"


def test_our_resnet_halves_its_launches_and_keeps_its_state_dict() -> None:
    model, x = with_statistics(models.resnet18(width=4)), random(1, 3, 32, 32)
    before, state = model(x), {name: value.clone() for name, value in model.state_dict().items()}
    model, report = converted(model)
    assert len(report.fused) == 20
    assert sum("residual" in row.fused for row in report.fused) == 8
    apart, fused = report.launches(x)
    # 20 BatchNorms, 17 activations and 8 additions; convolutions may take several kernels each.
    assert apart - fused == 20 + 17 + 8
    with torch.no_grad():
        close(model(x), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    cnnkernels.restore(model)
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(model(x), before)


def test_what_is_fused_follows_the_model() -> None:
    """Weights, statistics and modules are read at every call; training mode and hooks have the model's own forward."""
    model, x = with_statistics(Block(nn.ReLU())), random(1, 4, 5, 5)
    twin = copy.deepcopy(model)
    converted(model)

    def same() -> None:
        with torch.no_grad():
            close(model(x), twin(x))

    for each in (model, twin):
        with torch.no_grad():
            each.bn2.running_mean += 1
            each.conv1.weight *= 2
    same()
    for each in (model, twin):
        torch.manual_seed(0)
        each.conv2 = nn.Conv2d(4, 4, 1)
    same()
    for each in (model, twin):
        each.train()
    close(model(x), twin(x))
    close(model.bn1.running_var, twin.bn1.running_var)
    for each in (model, twin):
        each.eval()
        each.bn1.train()
    same()
    for each in (model, twin):
        each.bn1.eval()
    seen: list[Tensor] = []
    handle = model.bn1.register_forward_hook(lambda module, args, output: seen.append(output))
    same()
    handle.remove()
    assert len(seen) == 1
    for each in (model, twin):
        each.activation = nn.Tanh()
    same()


def test_copies_and_pickles_run_their_own_parameters() -> None:
    model, x = with_statistics(nn.Sequential(Block(nn.ReLU()), Block(nn.SiLU()))), random(1, 4, 5, 5)
    model, _ = converted(model)
    with torch.no_grad():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            with trace() as launched:
                assert torch.equal(other(x), expected)
            assert all("conv2d" in kernel for kernel in launched)
            other[0].conv1.weight.zero_()
            assert not torch.equal(other(x), expected)
        assert torch.equal(model(x), expected)


class Headed(nn.Module):
    """Parts that torch.fx can trace, one that it cannot, and an output that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.odd = Odd()

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(out=self.odd(self.stem(x)))


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.relu() if float(y.sum()) > 0 else -y.relu()


def test_what_cannot_be_traced_is_said_and_its_parts_are_fused() -> None:
    model, x = with_statistics(Headed()), random(1, 3, 6, 6)
    expected = model(x)
    model, report = converted(model)
    assert set(report.not_fused) == {"", "odd"}
    assert "torch.fx cannot trace it" in report.not_fused["odd"]
    assert "odd is not fused" in str(report)
    assert [(row.name, row.fused) for row in report.fused] == [("stem.0", "1, relu")]
    with torch.no_grad():
        got = model(x)
    assert type(got) is OrderedDict
    close(got["out"], expected["out"])


def test_hooks_on_blocks_still_run() -> None:
    model, x = with_statistics(nn.Sequential(Block(nn.ReLU()))), random(1, 4, 5, 5)
    model, _ = converted(model)
    seen: list[Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        assert torch.equal(model(x), seen[0])
    assert len(seen) == 1


@pytest.mark.parametrize("change", [lambda x: x.mul_(3), nn.ReLU(inplace=True)], ids=["method", "module"])
def test_a_residual_that_is_changed_in_between_is_not_fused(change: Callable[[Tensor], Tensor]) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.change = nn.Conv2d(3, 3, 1), change

        def forward(self, x: Tensor) -> Tensor:
            x = x * 2
            y = self.conv(x)
            self.change(x)
            return y + x

    model, x = Changing().eval(), random(1, 3, 4, 4)
    expected = model(x)
    model, report = converted(model)
    assert not report.fused
    with torch.no_grad():
        close(model(x), expected)


def test_training_mode_runs_what_eval_mode_leaves_out() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(torch.relu(self.conv(x)), 1.0, self.training)

    model, report = converted(Dropping().eval())
    assert len(report.fused) == 1
    with torch.no_grad():
        assert model(random(1, 3, 4, 4)).any()
        assert not model.train()(random(1, 3, 4, 4)).any()


def test_compile_and_export_see_single_nodes() -> None:
    model, x = with_statistics(Block(nn.ReLU())), random(1, 4, 5, 5)
    model, _ = converted(model)
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(torch.compile(model, backend="aot_eager", fullgraph=True)(x), expected)
        program = torch.export.export(model, (x,))
        targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert targets == ["cnnkernels.conv2d_fused.default"] * 2
        assert torch.equal(program.module()(x), expected)
