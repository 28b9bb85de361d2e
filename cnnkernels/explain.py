"""Which kernels a call runs, before it runs (:func:`explain`) and after (:func:`trace`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from cnnkernels import functional, ops, tuning
from cnnkernels.backends import BackendError, ambient_backend, select
from cnnkernels.epilogue import Epilogue
from cnnkernels.geometry import Conv2dGeometry, Pool2dGeometry, Refused
from cnnkernels.tuning import Entry, Problem

__all__ = ["Explanation", "PassPlan", "explain", "trace"]


@dataclass(frozen=True)
class PassPlan:
    """The plan of one pass."""

    name: str  # "fprop", "dgrad", "wgrad", "bias_grad", "max", "max_backward", "max_gather", "avg", "adaptive_max", ...
    role: str  # what the pass computes for the explained call
    kernel: str
    family: str
    modelled_us: float | None  # by the plan's cost model of an H200, no measurement; Triton's plan has none
    why: str
    tile: tuple[int, ...] | None
    batches: int  # the images run in so many, one after another; the grid is of one
    grid: int | tuple[int, ...]
    workspace_bytes: int
    refused: tuple[tuple[str, str], ...]  # every other candidate kernel and why it was not taken


@dataclass(frozen=True)
class Explanation:
    """What would run a call and why; printable."""

    function: str
    asked: str  # the backend asked for, by argument, use_backend or environment
    backend: str | None  # the backend that runs the call; None where it raises BackendError
    why: str
    passes: tuple[PassPlan, ...]  # forward first, then each pass a backward may run; empty for torch's own operator
    note: str = ""

    def __str__(self) -> str:
        lines = [f"{self.function} on backend {self.backend or 'none'} (asked for: {self.asked})", f"  {self.why}"]
        for plan in self.passes:
            tile = "" if plan.tile is None else f", tile {'x'.join(map(str, plan.tile))}"
            lines.append(f"  {plan.role}: {plan.name}")
            lines.append(f"    kernel {plan.kernel} of the {plan.family} family")
            batches = f"{plan.batches} batches, each " if plan.batches > 1 else ""
            lines.append(f"    {batches}grid {plan.grid}{tile}, workspace {plan.workspace_bytes} B")
            lines.append(f"    taken because {plan.why}")
            lines += [f"    not {name}: {reason}" for name, reason in plan.refused]
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)


def explain(fn: Callable[..., Any] | str, *args: Any, backend: str | None = None, **kwargs: Any) -> Explanation:
    """Say which backend and which kernels the call `fn(*args, **kwargs)` and its backward would run, and why.

    Nothing is launched and no GPU is needed. The kernels are those tuned or planned for dense tensors, in an eager call:
    torch.compile's leave the choice to the plan.

    Args:
        fn: conv2d, conv_transpose2d, max_pool2d, avg_pool2d, adaptive_max_pool2d or adaptive_avg_pool2d of
            cnnkernels.functional or torch.nn.functional (its max_pool2d_with_indices and adaptive_max_pool2d_with_indices, too), or its
            name, or a module of one of those kinds.
        backend: as in cnnkernels.functional.

    Raises:
        ValueError: `fn` is none of those.
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
    """
    if isinstance(fn, torch.nn.Module):
        fn, args, kwargs, backend = module_call(fn, args, kwargs, backend)
    name, args, kwargs, indices = _without_indices(fn, args, kwargs)
    asked = backend or ambient_backend()
    tensor = args[0] if args else kwargs.get("input")
    try:
        chosen, why = select(backend, tensor)
    except BackendError as error:
        return Explanation(name, asked, None, str(error), ())
    if chosen == "torch":
        return Explanation(name, asked, chosen, why, ())
    epilogue = None
    if name == "conv2d" and any(kwargs.get(part) is not None for part in ("activation", "residual", "norm")):
        parts = {part: kwargs.pop(part) for part in Epilogue._fields if part in kwargs}
        epilogue = Epilogue(**parts)
        epilogue.check()
    try:
        prepared = _PREPARE[name](*args, **kwargs)
    except (Refused, TypeError) as refusal:
        getattr(functional, name)(
            *args, backend="torch", **kwargs
        )  # raises torch's error where the arguments are wrong
        if asked == "auto":
            return Explanation(
                name, asked, "torch", f"auto: torch's own operator, since our kernels cannot: {refusal}", ()
            )
        return Explanation(
            name, asked, None, f"torch takes these arguments, backend {chosen!r} does not: {refusal}", ()
        )
    problems = _problems(name, prepared)
    note = ""
    if epilogue is not None:
        apart = epilogue.why_apart(*prepared)
        note = (
            f"what follows runs by torch's operators: {apart}" if apart else "what follows runs in the forward's kernel"
        )
        if not apart and epilogue.activation and epilogue.is_told_by_its_result:
            problems |= _activation_grad_problem(*prepared)
    image: Tensor = prepared[0]
    forward = _tuned(image, next(iter(problems)))
    if asked == "auto" and forward is not None:
        why = f"auto, {forward.why(tuning.device_name(image.device))}"
        if forward.backend == "torch":
            return Explanation(name, asked, "torch", why, ())
    try:
        passes = tuple(_pass_plan(problem, role, chosen, image, indices) for problem, role in problems.items())
    except ImportError as missing:
        return Explanation(name, asked, chosen, why, (), f"no plan to show: {missing}")
    return Explanation(name, asked, chosen, why, passes, note)


def forward_problem(
    fn: Callable[..., Any] | str, *args: Any, alike: Callable[[Tensor], Tensor] = lambda tensor: tensor, **kwargs: Any
) -> Problem:
    """The problem that the forward pass of the call `fn(*args, **kwargs)` is to our kernels.

    Args:
        fn: as for :func:`explain`.
        alike: gives the tensor that stands for a tensor of the call, a module's own among them: of another dtype, say.

    Raises:
        ValueError: `fn` is none of those that explain() knows.
        Refused, TypeError: our kernels do not run it.
    """
    if isinstance(fn, torch.nn.Module):
        fn, args, kwargs, _ = module_call(fn, args, kwargs, None)
    name, args, kwargs, _ = _without_indices(fn, args, kwargs)
    args, kwargs = tree_map_only(Tensor, alike, (args, kwargs))
    return next(iter(_problems(name, _PREPARE[name](*args, **kwargs))))


@contextmanager
def trace() -> Iterator[list[str]]:
    """Collect the names of our kernels launched inside the block, by any thread; the list fills when the block ends.

    Blocks nest: an outer block also has its inner blocks' kernels.
    """
    launched: list[str] = []
    outer = _traces[-1] if _traces else None
    if outer is not None:
        outer += ops.read_launch_log()
    _traces.append(launched)
    ops.start_launch_log()
    try:
        yield launched
    finally:
        launched += ops.read_launch_log()
        _traces.pop()
        if outer is None:
            ops.stop_launch_log()
        else:
            outer += launched
            ops.start_launch_log()


_traces: list[list[str]] = []  # the blocks now open, outermost first

_PREPARE: dict[str, Callable[..., tuple[Any, ...]]] = {
    "conv2d": functional.prepare_conv2d,
    "conv_transpose2d": functional.prepare_conv_transpose2d,
    "max_pool2d": functional.prepare_max_pool2d,
    "avg_pool2d": functional.prepare_avg_pool2d,
    "adaptive_max_pool2d": functional.prepare_adaptive_max_pool2d,
    "adaptive_avg_pool2d": functional.prepare_adaptive_avg_pool2d,
}


#: Where a call may have `return_indices` without its name.
_RETURN_INDICES = {"max_pool2d": 6, "adaptive_max_pool2d": 2}


def _without_indices(
    fn: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any], str]:
    """(name, args, kwargs, "flat" where the call asks for indices) of a call, which is then one for the values alone."""
    name = fn if isinstance(fn, str) else getattr(fn, "__name__", str(fn))
    plain = name.removesuffix("_with_indices")
    if plain not in _PREPARE or (plain != name and plain not in _RETURN_INDICES):
        raise ValueError(f"explain knows {', '.join(_PREPARE)} and their modules, not {name}")
    asked, kwargs = kwargs.get("return_indices", False), kwargs.copy()
    place = _RETURN_INDICES.get(plain)
    if place is not None:
        named = kwargs.pop("return_indices", None) is not None
        if len(args) == place + 1:
            if named:
                raise TypeError(f"{plain}() got multiple values for argument 'return_indices'")
            asked, args = args[place], args[:place]
    return plain, args, kwargs, "flat" if asked or plain != name else ""


def module_call(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str | None
) -> tuple[str, tuple[Any, ...], dict[str, Any], str | None]:
    """The functional call that `module(*args, **kwargs)` makes: function, arguments, and its backend."""
    m: Any = module
    backend = backend or getattr(module, "backend", None)
    input, *rest = args or (kwargs["input"],)
    if isinstance(module, torch.nn.Conv2d):
        call = (input, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)
        return "conv2d", call, {} if m.padding_mode == "zeros" else {"padding_mode": m.padding_mode}, backend
    if isinstance(module, torch.nn.ConvTranspose2d):
        size = rest[0] if rest else kwargs.get("output_size")
        extra = m._output_padding(input, size, m.stride, m.padding, m.kernel_size, 2, m.dilation)
        transposed = (input, m.weight, m.bias, m.stride, m.padding, extra, m.groups, m.dilation)
        return "conv_transpose2d", transposed, {}, backend
    if isinstance(module, torch.nn.MaxPool2d):
        pooled = (input, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)
        return "max_pool2d", pooled, {}, backend
    if isinstance(module, torch.nn.AvgPool2d):
        pooled = (input, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override)
        return "avg_pool2d", pooled, {}, backend
    if isinstance(module, torch.nn.AdaptiveMaxPool2d):
        return "adaptive_max_pool2d", (input, m.output_size, m.return_indices), {}, backend
    if isinstance(module, torch.nn.AdaptiveAvgPool2d):
        return "adaptive_avg_pool2d", (input, m.output_size), {}, backend
    return type(module).__name__, args, kwargs, backend


def _problems(name: str, prepared: tuple[Any, ...]) -> dict[Problem, str]:
    """The passes of a prepared call and what each computes for it, forward first."""
    of_kind = _conv2d_problems if isinstance(prepared[-1], Conv2dGeometry) else _pool2d_problems
    return of_kind(name, *prepared)


def _conv2d_problems(
    name: str, input: Tensor, weight: Tensor, bias: Tensor | None, g: Conv2dGeometry
) -> dict[Problem, str]:
    """The passes of a convolution and what each computes for the call, forward first."""
    roles = {"fprop": "forward", "dgrad": "gradient of the input", "wgrad": "gradient of the weight"}
    if name == "conv_transpose2d":
        roles = {"dgrad": "forward", "fprop": "gradient of the input", "wgrad": "gradient of the weight"}
    if bias is not None:
        roles["bias_grad"] = "gradient of the bias"
    filters, channels = weight.shape[0], weight.shape[1] * g.groups
    return {
        Problem(f"conv2d_{op}", input.dtype, input.shape[0], channels, filters, *g): role for op, role in roles.items()
    }


def _activation_grad_problem(
    input: Tensor, weight: Tensor, bias: Tensor | None, g: Conv2dGeometry
) -> dict[Problem, str]:
    """What a gradient makes of an activation that ran in a convolution's kernel."""
    alike = Conv2dGeometry(g.output, (1, 1), g.output, (1, 1), (0, 0), (1, 1), 1, g.channels_last)
    K = weight.shape[0]
    return {Problem("conv2d_activation_grad", input.dtype, input.shape[0], K, K, *alike): "gradient of the activation"}


def _pool2d_problems(name: str, input: Tensor, g: Pool2dGeometry) -> dict[Problem, str]:
    roles = {name: "forward", f"{name}_backward": "gradient of the input"}
    N, C = input.shape[:2]
    return {tuning.make_problem(op, input.dtype, N, C, C, g): role for op, role in roles.items()}


def _tuned(input: Tensor, problem: Problem) -> Entry | None:
    return tuning.lookup(input.get_device(), problem) if tuning.active else None


def _pass_plan(problem: Problem, role: str, backend: str, input: Tensor, indices: str) -> PassPlan:
    entry = None if indices else _tuned(input, problem)
    kernel = "" if entry is None else entry.kernels.get(backend, "")
    plan, why = problem.plan(indices=indices, backend=backend, device=input.device), ""
    measured: dict[str, str] = {}
    if entry is not None and kernel:
        try:
            plan = problem.plan(kernel, indices, backend, input.device)
            why = entry.why(tuning.device_name(input.device))
            best = entry.candidates[f"{backend}/{kernel}"]
            times = {
                name.partition("/")[2]: time
                for name, time in entry.candidates.items()
                if name.startswith(f"{backend}/")
            }
            measured = {name: f"measured {time:.4g} µs, against {best:.4g} of {kernel}" for name, time in times.items()}
        except RuntimeError as error:
            why = f"{plan['why']}; the tuning table's kernel is ignored: {error}"
    return PassPlan(
        problem.pass_name,
        role,
        plan["kernel"],
        plan["family"],
        plan["modelled_us"],
        why or plan["why"],
        plan["tile"],
        plan["batches"],
        plan["grid"],
        plan["workspace_bytes"],
        tuple((candidate, measured.get(candidate, reason)) for candidate, reason in plan["refused"]),
    )
