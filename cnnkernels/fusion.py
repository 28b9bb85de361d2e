"""Find what follows a model's convolutions and let their kernels do it: convert(model, fuse=True).

torch.fx traces a module's forward in eval mode. In its graph a chain

    Conv2d -> BatchNorm2d -> + other -> activation

of which everything behind the convolution may be missing, becomes one call of functional.conv2d. Parameters, buffers,
submodules and state_dict stay as they are: the graph's code is run on the module itself, looks each submodule up when it
needs it, and gives BatchNorm's tensors to the kernel as they are at that moment. So loading a state_dict, training on,
moving to a device or replacing a submodule need no second conversion.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.nn.modules import module as torch_module
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._python_dispatch import TorchDispatchMode

from cnnkernels import functional, nn
from cnnkernels.epilogue import ACTIVATIONS, Norm
from cnnkernels.explain import trace

__all__ = ["Fused", "FusedForward", "apart", "count_launches", "fuse", "unfuse"]


class Fused(NamedTuple):
    """What :func:`fuse` did."""

    convolutions: dict[str, str]  # by a convolution's name in the model: what runs in its kernel
    refused: dict[str, str]  # by a module's name: why its forward has no graph


class Activation(NamedTuple):
    name: str  # of epilogue.ACTIVATIONS
    negative_slope: float = 0.01


def activation_of(module: torch.nn.Module) -> Activation | None:
    """What a torch.nn activation is called here; None where it is not one that kernels know."""
    kind = type(module)
    if kind is torch.nn.LeakyReLU:
        return Activation("leaky_relu", module.negative_slope)  # type: ignore[arg-type]
    if kind is torch.nn.GELU:
        return Activation({"none": "gelu", "tanh": "gelu_tanh"}[module.approximate])  # type: ignore[index]
    name = _ACTIVATION_MODULES.get(kind)
    return None if name is None else Activation(name)


_ACTIVATION_MODULES: dict[type[torch.nn.Module], str] = {
    torch.nn.ReLU: "relu",
    torch.nn.ReLU6: "relu6",
    torch.nn.SiLU: "silu",
    torch.nn.Hardswish: "hardswish",
}
_ACTIVATION_CALLS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",
    "relu_": "relu",
    F.relu6: "relu6",
    F.silu: "silu",
    F.hardswish: "hardswish",
}
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


def _has_hooks(module: torch.nn.Module) -> bool:
    m: Any = module
    return bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)


def _is_ours(module: torch.nn.Module) -> bool:
    """Whether calling the module is what functional.conv2d with its attributes is."""
    return (
        isinstance(module, nn.Conv2d)
        and not isinstance(module, LazyModuleMixin)
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and type(module).forward is torch.nn.Conv2d.forward
        and "forward" not in vars(module)
    )


def _norm_of(module: torch.nn.Module) -> Norm | None:
    """BatchNorm2d as a kernel takes it; None where it computes statistics or is something else."""
    if type(module) is not torch.nn.BatchNorm2d or module.training:
        return None
    if module.running_mean is None or module.running_var is None:
        return None
    return Norm(module.running_mean, module.running_var, module.weight, module.bias, module.eps)


def convolve(
    conv: torch.nn.Module,
    norm: torch.nn.Module | None,
    activation: torch.nn.Module | Activation | None,
    input: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(norm(conv(input)) + residual), in one kernel where these modules are what they were when they were fused."""
    known = activation_of(activation) if isinstance(activation, torch.nn.Module) else activation
    stats = None if norm is None else _norm_of(norm)
    modules = [m for m in (conv, norm, activation) if isinstance(m, torch.nn.Module)]
    alike = _is_ours(conv) and (norm is None) == (stats is None) and (activation is None) == (known is None)
    if alike and not any(map(_has_hooks, modules)):
        c: Any = conv
        name, slope = known if known is not None else (None, 0.01)
        return functional.conv2d(
            input, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups, padding_mode=c.padding_mode,
            activation=name, negative_slope=slope, residual=residual, norm=stats, backend=c.backend,
        )  # fmt: skip
    z = conv(input)
    if norm is not None:
        z = norm(z)
    if residual is not None:
        z = z + residual
    if isinstance(activation, torch.nn.Module):
        activated: Tensor = activation(z)
        return activated
    return z if activation is None else ACTIVATIONS[activation.name](z, activation.negative_slope)


class FusedForward:
    """The forward of a fused module: its graph's code, or its own forward where the graph does not hold.

    That is in training mode, and where a module that the code passes over has a hook.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.code, self.passed_over, self.fused = _code_of(model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model = self.model
        if (
            torch_module._has_any_global_hook()
            or model.training
            or any(m.training or _has_hooks(m) for m in self.passed_over)
        ):
            return type(model).forward(model, *args, **kwargs)
        return self.code(model, *args, **kwargs)

    # Who asks a forward for its signature and its place in a file, as torch.export does, is told the model's own.
    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(type(self.model).forward.__get__(self.model))

    @property
    def __code__(self) -> types.CodeType:
        return type(self.model).forward.__code__

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model}  # the code is made again: a function of no file cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model = state["model"]

    def __getattr__(self, name: str) -> Any:
        if name not in ("code", "passed_over", "fused") or "model" not in vars(self):
            raise AttributeError(name)
        self.code, self.passed_over, self.fused = _code_of(self.model)
        return vars(self)[name]

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedForward:
        copied = object.__new__(FusedForward)
        memo[id(self)] = copied
        copied.model = memo.get(id(self.model), self.model)
        return copied


def fuse(model: torch.nn.Module) -> Fused:
    """Fuse what can be in `model`, in place: the largest modules that torch.fx can trace get a :class:`FusedForward`."""
    convolutions: dict[str, str] = {}
    refused: dict[str, str] = {}

    def visit(module: torch.nn.Module, name: str) -> None:
        if _is_leaf(module) or not any(map(_is_ours, module.modules())):
            return
        if "forward" in vars(module):
            if not isinstance(vars(module)["forward"], FusedForward):
                refused[name] = "its forward was replaced on the instance"
                return
            del module.forward
        try:
            forward = FusedForward(module)
        except Exception as error:  # the module's own code gets no tensors here, and may raise anything
            if type(module).forward is not torch.nn.Module.forward and not isinstance(module, torch.nn.Sequential):
                said = str(error).strip() or type(error).__name__
                refused[name] = f"torch.fx cannot trace it: {said.splitlines()[0]}"
            for child_name, child in module.named_children():
                visit(child, f"{name}.{child_name}" if name else child_name)
            return
        if not forward.fused:
            return
        object.__setattr__(module, "forward", forward)
        for conv, what in forward.fused.items():
            convolutions[f"{name}.{conv}" if name else conv] = what

    visit(model, "")
    return Fused(convolutions, refused)


def unfuse(model: torch.nn.Module) -> None:
    """Undo :func:`fuse`."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), FusedForward):
            del module.forward


@contextlib.contextmanager
def apart(model: torch.nn.Module) -> Iterator[None]:
    """Run every fused module's own forward inside the block."""
    forwards = {m: vars(m)["forward"] for m in model.modules() if isinstance(vars(m).get("forward"), FusedForward)}
    for module in forwards:
        del module.forward
    try:
        yield
    finally:
        for module, forward in forwards.items():
            object.__setattr__(module, "forward", forward)


class _Launches(TorchDispatchMode):
    """Counts torch's operators that compute something: all but views, which say so in their schema, and allocations."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        allocates = "empty" in func._schema.name or func in (torch.ops.aten.detach.default,)
        self.count += bool(returns) and not is_view and not allocates and func.namespace != "cnnkernels"
        return func(*args, **(kwargs or {}))


def count_launches(model: torch.nn.Module, args: Any, kwargs: Any) -> int:
    """The kernels of one forward: ours as launched, torch's as operators."""
    with trace() as ours, _Launches() as torchs:
        model(*args, **kwargs)
    return len(ours) + torchs.count


def _is_leaf(module: torch.nn.Module) -> bool:
    """Whether torch.fx is to leave a module's call in one piece."""
    ours_or_torchs = type(module).__module__.startswith(("torch.nn.", "cnnkernels.nn"))
    return (
        _is_ours(module)
        or (ours_or_torchs and not isinstance(module, torch.nn.Sequential))
        or _has_hooks(module)
        or ("forward" in vars(module) and not isinstance(vars(module)["forward"], FusedForward))
    )


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)

    def create_arg(self, a: Any) -> Any:
        if type(a) is OrderedDict:  # which torch.fx would make a dict
            return self.create_proxy("call_function", OrderedDict, (list(a.items()),), {}).node
        if isinstance(a, dict) and type(a) is not dict:
            raise NotImplementedError(f"it makes a {type(a).__name__}, which a graph would return as a dict")
        if (
            isinstance(a, Tensor)
            and not isinstance(a, torch.nn.Parameter)
            and not any(a is buffer for buffer in self.root.buffers())
        ):
            raise NotImplementedError("it makes a tensor of its own")
        return super().create_arg(a)

    def call_module(self, m: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not _is_leaf(m):
            self.passed_over.append(m)
        return super().call_module(m, forward, args, kwargs)

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        self.passed_over: list[torch.nn.Module] = []
        return super().trace(root, concrete_args)


def _code_of(model: torch.nn.Module) -> tuple[Callable[..., Any], list[torch.nn.Module], dict[str, str]]:
    """The fused forward as a function of the module and its inputs, the modules passed over, what was fused.

    Raises whatever the module's forward raises for torch.fx's proxies.
    """
    training = {module: module.training for module in model.modules()}
    tracer = _Tracer()
    try:
        for module in training:
            module.training = False
        graph = tracer.trace(model)
    finally:
        for module, flag in training.items():
            module.training = flag
    fused = dict(_fuse_graph(graph, dict(model.named_modules(remove_duplicate=False))))
    code = graph.python_code("self")
    namespace = dict(code.globals)
    exec(compile(code.src, f"<fused forward of {type(model).__name__}>", "exec"), namespace)  # torch.fx's own code
    return namespace["forward"], list(dict.fromkeys(tracer.passed_over)), fused


def _fuse_graph(graph: fx.Graph, modules: dict[str, torch.nn.Module]) -> Iterator[tuple[str, str]]:
    """Replace each chain by one call; yields the convolutions' names and what was fused into them."""

    def module_of(node: fx.Node) -> torch.nn.Module | None:
        return modules.get(str(node.target)) if node.op == "call_module" else None

    for node in list(graph.nodes):  # in eval mode it gives its input back
        if getattr(node.target, "__name__", "") == "stochastic_depth" and _argument(node, 3, "training") is False:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)

    for conv in list(graph.nodes):
        module = module_of(conv)
        if module is None or not _is_ours(module) or len(conv.args) != 1 or conv.kwargs:
            continue
        order = {node: i for i, node in enumerate(graph.nodes)}
        chain, names = [conv], []
        norm = residual = activation = None

        follower = _only_user(chain[-1])
        if follower is not None and isinstance(module_of(follower), torch.nn.BatchNorm2d):
            batch_norm: Any = module_of(follower)
            if type(batch_norm) is torch.nn.BatchNorm2d and batch_norm.running_mean is not None:
                norm = follower
                chain.append(follower)
                names.append(str(follower.target))

        follower = _only_user(chain[-1])
        if follower is not None and follower.target in _ADDITIONS and len(follower.args) == 2 and not follower.kwargs:
            other = follower.args[1] if follower.args[0] is chain[-1] else follower.args[0]
            changes_other = follower.target in (operator.iadd, "add_") and follower.args[0] is other
            if (
                isinstance(other, fx.Node)
                and order[other] < order[conv]
                and not changes_other
                and not _changed_between(other, order, order[conv], order[follower], module_of)
            ):
                residual = other
                chain.append(follower)
                names.append("residual")

        follower = _only_user(chain[-1])
        if follower is not None:
            known = _activation_of(follower, module_of)
            if known is not None:
                activation = follower if follower.op == "call_module" else known
                chain.append(follower)
                names.append(known.name)

        if not names:
            continue
        with graph.inserting_before(conv):
            conv_module = graph.get_attr(str(conv.target))
            norm_module = None if norm is None else graph.get_attr(str(norm.target))
            act = graph.get_attr(str(activation.target)) if isinstance(activation, fx.Node) else activation
            call = graph.call_function(convolve, (conv_module, norm_module, act, conv.args[0], residual))
        chain[-1].replace_all_uses_with(call)
        for node in reversed(chain):
            graph.erase_node(node)
        yield str(conv.target), ", ".join(names)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _activation_of(node: fx.Node, module_of: Callable[[fx.Node], torch.nn.Module | None]) -> Activation | None:
    if node.op == "call_module":
        module = module_of(node)
        return None if module is None else activation_of(module)
    if node.op not in ("call_function", "call_method"):
        return None
    if node.target is F.leaky_relu:
        return Activation("leaky_relu", _argument(node, 1, "negative_slope", 0.01))
    if node.target is F.gelu:
        return Activation({"none": "gelu", "tanh": "gelu_tanh"}[_argument(node, 1, "approximate", "none")])
    name = _ACTIVATION_CALLS.get(node.target)
    return None if name is None else Activation(name)


def _changed_between(
    node: fx.Node, order: dict[fx.Node, int], first: int, last: int,
    module_of: Callable[[fx.Node], torch.nn.Module | None],
) -> bool:  # fmt: skip
    """Whether a node between two places writes to the tensor that `node` is."""
    for user in node.users:
        if not first < order[user] < last or not user.args or user.args[0] is not node:
            continue
        name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", "")
        module = module_of(user)
        if module is not None and getattr(module, "inplace", False):
            return True
        if user.op != "call_module" and (name.endswith("_") or name in ("iadd", "imul", "isub", "setitem")):
            return True
        if user.kwargs.get("inplace"):
            return True
    return False
