"""Put an existing model's convolutions and poolings on our kernels, and take them off again."""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch.nn.utils import parametrize

from cnnkernels import fusion, nn
from cnnkernels.backends import check_name
from cnnkernels.explain import trace

__all__ = ["Report", "Row", "convert", "restore"]

_OURS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Conv2d: nn.Conv2d,
    torch.nn.ConvTranspose2d: nn.ConvTranspose2d,
    torch.nn.LazyConv2d: nn.LazyConv2d,
    torch.nn.LazyConvTranspose2d: nn.LazyConvTranspose2d,
    torch.nn.MaxPool2d: nn.MaxPool2d,
    torch.nn.AvgPool2d: nn.AvgPool2d,
    torch.nn.AdaptiveMaxPool2d: nn.AdaptiveMaxPool2d,
    torch.nn.AdaptiveAvgPool2d: nn.AdaptiveAvgPool2d,
}
_TORCHS = {ours: theirs for theirs, ours in _OURS.items()}

# Where torch keeps every convolution and pooling: what descends from these belongs in a report.
_FAMILIES = ("torch.nn.modules.conv", "torch.nn.modules.pooling")


@dataclass(frozen=True)
class Row:
    """One convolution or pooling of a model."""

    name: str  # as in model.named_modules(); "" is the model itself
    type: str
    replaced: bool
    reason: str  # why not, or what is special about it
    fused: str = ""  # what runs in a convolution's kernel in eval mode


@dataclass(frozen=True)
class Report:
    """What :func:`convert` or :func:`restore` did, a row for each convolution and pooling; printable as a table.

    After calls inside :meth:`watch` the table also has the kernels that each module's last forward launched.
    """

    rows: tuple[Row, ...]
    #: By a module's name, why what follows its convolutions was not looked at for fusion.
    not_fused: dict[str, str] = field(default_factory=dict)
    #: By a module's name: the kernels of its last forward inside watch(), in order. Empty where torch's operator ran.
    kernels: dict[str, list[str]] = field(default_factory=dict, compare=False)
    _model: weakref.ref[torch.nn.Module] | None = field(default=None, repr=False, compare=False)

    @contextlib.contextmanager
    def watch(self) -> Iterator[Report]:
        """Note which kernels each convolution and pooling launches in its forward while the block runs.

        Raises:
            ReferenceError: the model is gone.
        """
        model = self._the_model()
        open_traces: list[tuple[contextlib.AbstractContextManager[list[str]], list[str]]] = []

        def before(module: torch.nn.Module, inputs: object) -> None:
            tracing = trace()
            open_traces.append((tracing, tracing.__enter__()))

        def after(name: str) -> Callable[..., None]:
            def note(module: torch.nn.Module, inputs: object, output: object) -> None:
                tracing, launched = open_traces.pop()
                tracing.__exit__(None, None, None)
                self.kernels[name] = launched

            return note

        with contextlib.ExitStack() as hooks:
            for row in self.rows:
                module = model.get_submodule(row.name)
                for hook in (
                    module.register_forward_pre_hook(before),
                    module.register_forward_hook(after(row.name), always_call=True),
                ):
                    hooks.callback(hook.remove)
            yield self

    @property
    def replaced(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.replaced)

    @property
    def kept(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.replaced)

    @property
    def fused(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.fused)

    def launches(self, *args: object, **kwargs: object) -> tuple[int, int]:
        """How many kernels model(*args, **kwargs) launches in eval mode: with every operator apart, and as it is now.

        Runs it twice, without gradients. Our kernels are counted as they are launched; of torch's operators each that
        computes something counts as one.

        Raises:
            ReferenceError: the model is gone.
        """
        model = self._the_model()
        training = {module: module.training for module in model.modules()}
        try:
            model.eval()
            with torch.no_grad():
                with fusion.apart(model):
                    before = fusion.count_launches(model, args, kwargs)
                return before, fusion.count_launches(model, args, kwargs)
        finally:
            for module, flag in training.items():
                module.training = flag

    def _the_model(self) -> torch.nn.Module:
        model = None if self._model is None else self._model()
        if model is None:
            raise ReferenceError("the model that this report is about is gone")
        return model

    def __str__(self) -> str:
        titles = ("module", "type", "replaced", "fused", "kernels of the last call", "reason")
        table: list[tuple[str, ...]] = [titles]
        for row in self.rows:
            kernels = self.kernels.get(row.name)
            ran = "" if kernels is None else ", ".join(kernels) or "torch's operator"
            table.append((row.name or "(model)", row.type, "yes" if row.replaced else "no", row.fused, ran, row.reason))
        shown = [title not in ("fused", "kernels of the last call") for title in titles]
        shown[3], shown[4] = bool(self.fused), bool(self.kernels)
        table = [tuple(cell for cell, show in zip(cells, shown, strict=True) if show) for cells in table]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
        lines.append(f"{len(self.replaced)} of {len(self.rows)} convolutions and poolings replaced")
        if self.fused:
            lines[-1] += f", {len(self.fused)} convolutions with what follows them"
        lines += [f"{name or 'the model'} is not fused: {reason}" for name, reason in self.not_fused.items()]
        return "\n".join(lines)


def convert(model: torch.nn.Module, backend: str | None = None, *, fuse: bool = False) -> Report:
    """Change every torch.nn Conv2d, ConvTranspose2d, (Adaptive)MaxPool2d and (Adaptive)AvgPool2d of `model` into cnnkernels.nn's.

    In place, and only the modules' class changes: parameters, buffers, hooks, parametrizations and sharing stay, and so does the
    state_dict. Subclasses of those are left alone and reported, since their own forward may mean something else.
    Calls of torch.nn.functional inside a forward() are no modules: they are neither changed nor reported.

    Args:
        backend: set as `module.backend` of each replaced module; None leaves the ambient backend in charge.
        fuse: for inference. Where torch.fx can trace the model, or parts of it, a convolution's kernel also does the
            BatchNorm2d, the addition of a residual and the ReLU, ReLU6, LeakyReLU, SiLU, GELU or Hardswish behind it. That
            is so in eval mode; in training mode the model's own forward runs. Parameters, state_dict and submodules stay
            as they are, and are read at every call; convert again after changing what the forward does.

    Raises:
        BackendError: `backend` is no backend's name.
    """
    if backend is not None:
        check_name(backend)
    importlib.import_module("cnnkernels.flops")  # or torch's counter would see convolutions without operations

    def change(module: torch.nn.Module) -> tuple[bool, str]:
        plain, reason = _plain_type(module)
        if plain in _TORCHS:
            reason = "is cnnkernels.nn's already"
        elif plain in _OURS:
            _set_type(module, plain, _OURS[plain])
        else:
            return False, _why_kept(module)
        if backend is not None:
            module.backend = backend  # type: ignore[assignment]
        return True, reason

    report = _over(model, change)
    if not fuse:
        return report
    fused = fusion.fuse(model)
    rows = tuple(replace(row, fused=fused.convolutions.get(row.name, "")) for row in report.rows)
    return replace(report, rows=rows, not_fused=fused.refused)


def restore(model: torch.nn.Module) -> Report:
    """Undo :func:`convert`: change every module of cnnkernels.nn in `model` into torch.nn's, in place."""

    def change(module: torch.nn.Module) -> tuple[bool, str]:
        plain, reason = _plain_type(module)
        if plain not in _TORCHS:
            return False, "is torch's own" if plain in _OURS else "was never replaced"
        _set_type(module, plain, _TORCHS[plain])
        module.__dict__.pop("backend", None)
        return True, reason

    fusion.unfuse(model)
    return _over(model, change)


def _over(model: torch.nn.Module, change: Callable[[torch.nn.Module], tuple[bool, str]]) -> Report:
    rows = []
    for name, module in model.named_modules():
        if any(base.__module__ in _FAMILIES for base in type(module).__mro__):
            kind = type(module).__name__
            rows.append(Row(name, kind, *change(module)))
    return Report(tuple(rows), _model=weakref.ref(model))


def _plain_type(module: torch.nn.Module) -> tuple[type[torch.nn.Module] | None, str]:
    """The class that parametrization hides, and a note that it does; None where forward is not the class's."""
    kind = type(module)
    if "forward" in vars(module):
        return None, ""
    if parametrize.is_parametrized(module):
        return kind.__bases__[0], "parametrized"
    return kind, ""


def _set_type(module: torch.nn.Module, plain: type[torch.nn.Module], target: type[torch.nn.Module]) -> None:
    kind = type(module)
    if kind is plain:
        module.__class__ = target
        return
    # A parametrized module's class was made for it, with a property for each parametrized tensor, and is shared with
    # its deep copies only. They keep theirs: this module gets the same class on another base.
    members = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, (target,), members)


def _why_kept(module: torch.nn.Module) -> str:
    kind = type(module)
    if "forward" in vars(module):
        return "its forward was replaced on the instance, which changing its class would not change"
    for theirs in (*_OURS, *_TORCHS):
        if isinstance(module, theirs):
            return f"a subclass of {theirs.__name__} ({kind.__module__}.{kind.__qualname__}): its forward may differ"
    return f"no kernels for {kind.__name__}"
