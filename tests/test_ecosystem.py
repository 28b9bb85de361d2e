"""What people use around a model works around a converted one: compilers, autocast, torch.func, tools that rewrite."""

from __future__ import annotations

import copy
import io
import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils import prune
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode

import cnnkernels
from cnnkernels import BackendError, models, trace
from cnnkernels.models.resnet import BasicBlock

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*isinstance.treespec, LeafSpec")


def _net() -> nn.Sequential:
    """Smooth but for the max pooling, so that it has derivatives of every order."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 4, 2, stride=2),
        nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


def _twins(dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, nn.Sequential]:
    """The net converted, and torch's; in fp64, where torch.testing's tolerance is a million times its rounding."""
    theirs = _net().to(dtype)
    ours = copy.deepcopy(theirs)
    assert not cnnkernels.convert(ours, backend="emulator").kept
    return ours, theirs


def _images(count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, 8, 8, dtype=dtype)


def _resnet() -> models.ResNet:
    """A residual network, a block in each stage."""
    torch.manual_seed(0)
    return models.ResNet(BasicBlock, (1, 1, 1, 1), width=4, num_classes=5, backend="emulator")


# Compilers.


@pytest.fixture
def no_earlier_compilations() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("no_earlier_compilations")
def test_a_whole_resnet_compiles_once() -> None:
    """No graph break, any batch size, forward and backward. By aot_eager: inductor compiles C++ for a minute."""
    model = _resnet()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend=counter)
    for batch in (7, 5):
        images = torch.randn(batch, 3, 32, 32)
        torch._dynamo.mark_dynamic(images, 0)
        results = []
        for module in (model, compiled):
            scores = module(images)
            results.append((scores, *torch.autograd.grad(scores.square().sum(), list(module.parameters()))))
        for eager, ours in zip(*results, strict=True):
            assert torch.equal(eager, ours)
    assert counter.frame_count == 1
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), compiled.buffers(), strict=True))


def test_an_exported_resnet_is_made_of_our_operators() -> None:
    model = _resnet().eval()
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        exported = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=(batch,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    ours = [target for target in targets if target.startswith("cnnkernels.")]
    assert sorted(ours) == [
        "cnnkernels.adaptive_avg_pool2d.default",
        *["cnnkernels.conv2d_fprop.default"] * convolutions,
        "cnnkernels.max_pool2d.default",
    ]
    assert not any("conv" in target or "pool" in target for target in targets if target not in ours)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        assert torch.equal(loaded(images), model(images))


def test_torchscript_says_what_to_do() -> None:
    ours, theirs = _twins()
    images = _images()
    with pytest.raises(RuntimeError, match=r"cannot compile cnnkernels.nn.Conv2d.*restore\(model\) before scripting"):
        torch.jit.script(ours)
    with pytest.raises(BackendError, match=r"torch.jit.trace cannot record.*restore\(model\) before tracing"):
        torch.jit.trace(ours, images)
    cnnkernels.restore(ours)
    for script in (torch.jit.script(ours), torch.jit.trace(ours, images)):
        torch.testing.assert_close(script(images), theirs(images))


def test_auto_lets_torchscript_record_torchs_operators() -> None:
    model = _net()
    cnnkernels.convert(model)
    images = _images(dtype=torch.float32)
    torch.testing.assert_close(torch.jit.trace(model, images)(images), model(images))


# Autocast and memory format.


def test_autocast_with_a_gradient_scaler() -> None:
    """bf16 maps, fp32 parameters: gradients are torch's; an infinite step is left out, and the scale halved."""
    twins = _twins(torch.float32)
    images = _images(dtype=torch.float32)
    steps = []
    for model in twins:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
        seen = []
        for factor in (1.0, float("inf"), 1.0):
            before = [parameter.detach().clone() for parameter in model.parameters()]
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                maps = model[:-1](images)
                assert maps.dtype == torch.bfloat16
                loss = model[-1](maps).float().square().mean() * factor
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            gradients = [parameter.grad.clone() for parameter in model.parameters()]
            scaler.step(optimizer)
            scaler.update()
            moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            seen.append((moved, scaler.get_scale(), gradients))
        steps.append(seen)
    for ours, theirs, wanted in zip(*steps, ((True, 2048.0), (False, 1024.0), (True, 2048.0)), strict=True):
        assert ours[:2] == theirs[:2] == wanted
    # Both round each layer's maps and gradients to bf16 (half a unit: 2^-9): 9 layers there, 9 back, both nets,
    # relative to the largest values; weights of a size of 1 / sqrt(fan_in) do not make it more.
    for mine, right in zip(steps[0][0][2], steps[1][0][2], strict=True):
        assert mine.dtype == torch.float32
        assert (mine - right).abs().max() <= 36 * 2**-9 * right.abs().max()


def test_channels_last_from_end_to_end() -> None:
    """Every map and gradient of a residual network is channels_last, and no kernel that turns images round runs."""
    model = _resnet().to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
    strange: list[str] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() == 4:
            for tensor, what in ((output, "output"), (inputs[0], "input")):
                if not tensor.is_contiguous(memory_format=torch.channels_last):
                    strange.append(f"{what} of {module}")

    for module in model.modules():
        module.register_forward_hook(look)
    with trace() as launched:
        model(images).square().sum().backward()
    assert not strange
    assert launched
    assert not [kernel for kernel in launched if "packed" in kernel or "pack_images" in kernel]
    for tensor in (images, *model.parameters()):
        assert tensor.grad is not None
        if tensor.dim() == 4:
            assert tensor.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_and_meta_tensors(dtype: torch.dtype) -> None:
    ours, theirs = _twins(torch.float32)
    images = _images(dtype=dtype)
    with torch.no_grad():
        wanted = theirs.double()(images.double())
        error = (ours.to(dtype)(images).double() - wanted).abs().max()
    # Maps and parameters are rounded to dtype once in each of ten layers; weights of a size of 1 / sqrt(fan_in)
    # do not make it more.
    assert error <= 20 * torch.finfo(dtype).eps * wanted.abs().max()
    assert ours.to("meta")(images.to("meta")).shape == wanted.shape


# torch.func and gradients of gradients.


def test_per_sample_gradients_are_those_of_a_loop() -> None:
    ours, theirs = _twins()
    images, targets = _images(4), torch.tensor([0, 2, 1, 2])

    def loss(parameters: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        scores = torch.func.functional_call(ours, parameters, image[None])
        return nn.functional.cross_entropy(scores, target[None])

    parameters = {name: value.detach() for name, value in ours.named_parameters()}
    with trace() as launched:
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images, targets)
    for index in range(len(images)):
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(images[index : index + 1]), targets[index : index + 1]).backward()
        for name, parameter in theirs.named_parameters():
            torch.testing.assert_close(each[name][index], parameter.grad, msg=lambda text, at=name: f"{at}: {text}")
    assert len(launched) < 3 * 3 * len(images), "a launch for the whole batch, not one for each sample"


def test_forward_mode_of_a_whole_net() -> None:
    ours, theirs = _twins()
    images = _images()
    tangents = {name: torch.randn_like(value) for name, value in ours.named_parameters()}
    results = []
    for model in (ours, theirs):
        parameters = {name: value.detach() for name, value in model.named_parameters()}

        def forward(values: dict[str, Tensor], x: Tensor, model: nn.Module = model) -> Tensor:
            return torch.func.functional_call(model, values, x)

        results.append(torch.func.jvp(forward, (parameters, images), (tangents, images.cos())))
    torch.testing.assert_close(*results)


def test_an_ensemble_by_vmap() -> None:
    """torch.func.stack_module_state: models of one shape run as one, each convolution in one launch."""
    ensemble = [copy.deepcopy(_twins()[0]) for _ in range(3)]
    for model in ensemble:
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    images = _images()
    state = torch.func.stack_module_state(ensemble)

    def run(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(ensemble[0], (parameters, buffers), (images,))

    torch.testing.assert_close(torch.func.vmap(run)(*state), torch.stack([model(images) for model in ensemble]))


def test_a_gradient_penalty_has_torchs_parameter_gradients() -> None:
    """WGAN-GP: the norm of the critic's gradient by its input is in the loss, so backward goes through backward."""
    images = _images()
    results = []
    for critic in _twins():
        x = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        loss = critic(x).mean() + 10 * penalty
        loss.backward()
        results.append((loss.detach(), x.grad, *[parameter.grad for parameter in critic.parameters()]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_blocks_have_the_same_gradients(use_reentrant: bool) -> None:
    images = _images()
    runs: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
        "plain": lambda model, x: model(x),
        "whole": lambda model, x: checkpoint(model, x, use_reentrant=use_reentrant),
        "segments": lambda model, x: checkpoint_sequential(model, 3, x, use_reentrant=use_reentrant),
    }
    results, launches = {}, {}
    for title, run in runs.items():
        model, x = _twins()[0], images.clone().requires_grad_()
        with trace() as launched:
            run(model, x).square().sum().backward()
        results[title] = [x.grad, *[parameter.grad for parameter in model.parameters()]]
        launches[title] = len(launched)
    for title in ("whole", "segments"):
        assert all(torch.equal(a, b) for a, b in zip(results["plain"], results[title], strict=True)), title
        assert launches[title] > launches["plain"], "backward computes the block again, on our kernels"


# Tools that look into a model or rewrite it.


def test_fx_has_a_node_for_each_of_our_modules() -> None:
    ours, theirs = _twins()
    ours[0].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))  # must run once, where the module runs
    traced = torch.fx.symbolic_trace(ours)
    assert [(node.op, node.target) for node in traced.graph.nodes] == [
        (node.op, node.target) for node in torch.fx.symbolic_trace(theirs).graph.nodes
    ]
    images = _images()
    with trace() as launched:
        assert torch.equal(traced(images), ours(images))
    assert len(launched) == 12
    assert cnnkernels.restore(traced).replaced
    torch.testing.assert_close(traced(images), theirs(2 * images))


class _Scaled(cnnkernels.nn.Conv2d):
    """A subclass whose forward does more: torch.fx looks into torch's subclasses, too."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_fx_goes_into_subclasses() -> None:
    model = nn.Sequential(_Scaled(3, 4, 3)).double()
    model[0].backend = "emulator"
    traced = torch.fx.symbolic_trace(model)
    operations = [node.target for node in traced.graph.nodes if node.op.startswith("call")]
    assert operations == [cnnkernels.functional.conv2d, operator.mul]
    images = _images()
    with trace() as launched:
        assert torch.equal(traced(images), model(images))
    assert len(launched) == 2


def test_fx_keeps_calls_of_our_functions() -> None:
    """A proxy is no tensor, and yet the call is ours: recorded with its backend, not replaced by torch's function."""

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = cnnkernels.functional.max_pool2d(x, 2, backend="emulator")
            return cnnkernels.functional.avg_pool2d(input=x, kernel_size=2)

    traced = torch.fx.symbolic_trace(Functional())
    calls = [(node.target, node.kwargs.get("backend")) for node in traced.graph.nodes if node.op == "call_function"]
    assert calls == [(cnnkernels.functional.max_pool2d, "emulator"), (cnnkernels.functional.avg_pool2d, None)]
    images = _images()
    with trace() as launched:
        assert torch.equal(traced(images), Functional()(images))
    assert len(launched) == 2


class _StandIn:
    """What is no tensor and answers torch's functions."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func, args, kwargs


class _Kind(Tensor):
    """A subclass that changes nothing: results are of its type."""


@pytest.mark.parametrize("backend", ["emulator", "torch"])
def test_torchs_protocol_for_other_tensors(backend: str) -> None:
    x, weight, stand_in = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2), _StandIn()
    ours = cnnkernels.functional
    recorded = (ours.max_pool2d, (stand_in, 2), {"backend": backend})
    assert ours.max_pool2d(stand_in, 2, backend=backend) == recorded
    func, (image, filters), _ = ours.conv2d(x, stand_in, backend=backend)
    assert func is ours.conv2d
    assert image is x
    assert filters is stand_in
    for result in (
        ours.max_pool2d(x.as_subclass(_Kind), 2, backend=backend),
        ours.conv2d(x.as_subclass(_Kind), weight.requires_grad_(), backend=backend),
    ):
        assert type(result) is _Kind


def test_batch_norm_is_fused_into_a_converted_convolution() -> None:
    for kind, dimension in ((nn.Conv2d, False), (nn.ConvTranspose2d, True)):
        pair = nn.Sequential(kind(3, 4, 3), nn.BatchNorm2d(4)).double()
        cnnkernels.convert(pair, backend="emulator")
        pair(_images(5))  # statistics of some images
        pair.eval()
        fused = fuse_conv_bn_eval(*pair, transpose=dimension)
        assert type(fused) is type(pair[0])
        assert fused.backend == "emulator"
        images = _images()
        torch.testing.assert_close(fused(images), pair(images))


def test_operations_are_counted_as_torchs() -> None:
    """torch.utils.flop_counter, forward and backward, module by module."""
    counts = []
    for model in _twins():
        with FlopCounterMode(display=False) as counter:
            model(_images().requires_grad_()).sum().backward()
        counts.append({module: sum(each.values()) for module, each in counter.get_flop_counts().items()})
    ours, theirs = counts
    for module in ("Sequential.0", "Sequential.3", "Sequential.9"):
        assert ours[module] == theirs[module], module
    # Three passes of two operations for each tap, channel of the group, filter, pixel and image. Torch's count of
    # the gradient of a grouped weight takes all channels for each filter.
    assert ours["Sequential.4"] == 3 * 2 * (3 * 3) * 2 * 6 * (6 * 6) * 2 < theirs["Sequential.4"]


def test_hooks_see_what_torchs_modules_show() -> None:
    """Forward and backward hooks, and activations' and gradients' shapes in them."""
    images = _images()
    seen: list[list[Any]] = []
    for model in _twins():
        seen.append([])
        for module in model:
            module.register_forward_hook(
                lambda module, inputs, output, at=seen[-1]: at.append((inputs[0].shape, output.shape))
            )
            module.register_full_backward_hook(
                lambda module, before, after, at=seen[-1]: at.append([None if g is None else g.shape for g in before])
            )
        model(images.requires_grad_()).sum().backward()
    assert seen[0] == seen[1]


def test_synchronised_batch_norm_leaves_our_modules_alone() -> None:
    """Its own forward runs on GPUs only; the conversion is all that can be looked at here."""
    model = _resnet()
    before = {name: type(module) for name, module in model.named_modules()}
    after = {name: type(module) for name, module in nn.SyncBatchNorm.convert_sync_batchnorm(model).named_modules()}
    changed = {name for name in before if before[name] is not after[name]}
    assert changed == {name for name, kind in before.items() if kind is nn.BatchNorm2d}


# Training's helpers, and files.


@pytest.mark.parametrize("implementation", ["foreach", "fused"])
def test_optimizers_clipping_averages_and_pruning(implementation: str) -> None:
    """A training loop with all of it follows torch's."""
    images, results = _images(), []
    for model in _twins():
        prune.l1_unstructured(model[0], "weight", amount=0.25)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **{implementation: True})
        norms = []

        def step(
            model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer, norms: list[Tensor] = norms
        ) -> None:
            optimizer.zero_grad()
            model(images).square().mean().backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.01, foreach=True))
            optimizer.step()

        step()
        prune.remove(model[0], "weight")
        assert int((model[0].weight == 0).sum()) == 27
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        average.update_parameters(model)
        step()
        average.update_parameters(model)
        assert all(type(a) is type(b) for a, b in zip(average.module, model, strict=True))
        results.append((*norms, average(images), model(images), *model.parameters()))
    torch.testing.assert_close(*results)


def test_files() -> None:
    """A converted model's weights are torch's file, which both read; as a whole it comes back on our kernels."""
    ours, theirs = _twins()
    images = _images()
    wanted = ours(images)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    for model in (theirs, _twins()[0]):
        file.seek(0)
        model.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(model(images), wanted)
    whole = io.BytesIO()
    torch.save(ours, whole)
    whole.seek(0)
    with trace() as launched:
        assert torch.equal(torch.load(whole, weights_only=False)(images), wanted)
    assert launched
    assert ours.share_memory() is ours
    assert all(parameter.is_shared() for parameter in ours.parameters())
    assert torch.equal(ours(images), wanted)


# --- CUDA graphs and streams.


@pytest.fixture
def network_on_gpu() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = models.resnet18(width=8, num_classes=10).cuda().eval()
    cnnkernels.convert(model, backend="cuda", fuse=True)
    return model, torch.randn(4, 3, 32, 32, device="cuda")


@pytest.mark.gpu
def test_a_cuda_graph_replays_a_whole_network(network_on_gpu: tuple[nn.Module, Tensor]) -> None:
    model, images = network_on_gpu
    static = images.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            model(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = model(static)
    for seed in range(3):
        torch.manual_seed(seed)
        static.copy_(torch.randn_like(images))
        graph.replay()
        with torch.no_grad():
            assert torch.equal(captured, model(static))


@pytest.mark.gpu
def test_a_training_step_is_captured(network_on_gpu: tuple[nn.Module, Tensor]) -> None:
    model, images = network_on_gpu
    model.train()
    parameters = list(model.parameters())
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(model(images).square().mean(), parameters)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.autograd.grad(model(images).square().mean(), parameters)
    graph.replay()
    for one, other in zip(captured, torch.autograd.grad(model(images).square().mean(), parameters), strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_streams_side_by_side_give_the_same_bits(network_on_gpu: tuple[nn.Module, Tensor]) -> None:
    model, images = network_on_gpu
    with torch.no_grad():
        expected = model(images)
        streams = [torch.cuda.Stream() for _ in range(4)]
        results = []
        torch.cuda.synchronize()
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(model(images))
        torch.cuda.synchronize()
    assert all(torch.equal(result, expected) for result in results)
