"""What an operator would launch for a problem, and why: it is asked, on tensors that have sizes and no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cnnkernels.triton.launch import Recorded, recording

if TYPE_CHECKING:
    from cnnkernels.tuning_table import Problem


def explained(problem: Problem, kernel: str, indices: str) -> dict[str, Any]:
    """The plan of `problem` on dense tensors, in the form of that of the compiled kernels (Problem.plan)."""
    from cnnkernels.triton import operators

    p = problem
    memory_format = torch.channels_last if p.channels_last else torch.contiguous_format

    def tensor(*size: int, dtype: torch.dtype = p.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta", memory_format=memory_format)

    x, y = tensor(p.N, p.C, *p.image), tensor(p.N, p.K, *p.output)
    forced = {"kernel_name": kernel}
    windows = (p.filter, p.stride, p.padding)
    index = tensor(p.N, p.K, *p.output, dtype=torch.uint8 if indices == "window" else torch.int64)
    with recording() as record:
        if p.op in ("conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad"):
            w = tensor(p.K, p.C // p.groups, *p.filter)
            tensors, size = {
                "fprop": ((x, w, None), p.output),
                "dgrad": ((y, w, None), p.image),
                "wgrad": ((y, x), p.filter),
            }[p.pass_name]
            arguments = (*tensors, size, p.stride, p.padding, p.dilation, p.groups, p.channels_last)
            getattr(operators, p.op)(*arguments, **forced, padding_mode=p.padding_mode)
        elif p.op == "conv2d_bias_grad":
            operators.conv2d_bias_grad(y, **forced)
        elif p.op == "conv2d_activation_grad":
            operators.conv2d_activation_grad(y, y, "relu", 0.0, p.channels_last, **forced)
        elif p.op == "max_pool2d":
            arguments = (x, p.output, *windows, p.dilation)
            if indices == "none":
                operators.max_pool2d(*arguments, p.channels_last, **forced)
            else:
                operators.max_pool2d_with_indices(*arguments, indices == "flat", p.channels_last, **forced)
        elif p.op == "max_pool2d_backward":
            operators.max_pool2d_backward(y, index, p.image, *windows, p.dilation, p.channels_last, **forced)
        elif p.op == "avg_pool2d":
            operators.avg_pool2d(x, p.output, *windows, True, None, p.channels_last, **forced)
        elif p.op == "avg_pool2d_backward":
            operators.avg_pool2d_backward(y, p.image, *windows, True, None, p.channels_last, **forced)
        elif p.op == "adaptive_max_pool2d_backward":
            operators.adaptive_max_pool2d_backward(y, index.long(), p.image, p.channels_last, **forced)
        elif p.op == "adaptive_avg_pool2d_backward":
            operators.adaptive_avg_pool2d_backward(y, p.image, p.channels_last, **forced)
        else:
            getattr(operators, p.op)(x, p.output, p.channels_last, **forced)
    first, choice = record.launches[0], record.choices[0] if record.choices else None
    return {
        "kernel": first.name,
        "family": choice.family if choice else "elementwise" if p.op == "conv2d_activation_grad" else "sums",
        "tile": choice.tile.shape if choice else None,
        "batches": 1,
        "grid": first.grid,
        "threads": 32 * first.kwargs["num_warps"],
        "slabs": choice.slabs if choice else 1,
        "workspace_bytes": _workspace_bytes(record),
        "modelled_us": None,
        "why": choice.why if choice else "it is the only one",
        "refused": choice.refused if choice else (),
    }


def _workspace_bytes(record: Recorded) -> int:
    """Of partial sums: the tensors in one dimension that a first launch writes for another."""
    if len(record.launches) == 1:
        return 0
    return sum(arg.nbytes for arg in record.launches[0].args if isinstance(arg, torch.Tensor) and arg.dim() == 1)
