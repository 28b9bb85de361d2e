"""What the tests of tuning share: three problems, made-up entries for them, and which kernels a call launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cnnkernels import trace
from cnnkernels.bench import tune
from cnnkernels.bench.layer import Layer
from cnnkernels.tuning import Entry, Problem

CONV = Layer("conv2d", 2, 3, 9, 9, 4, 3, 3)
POOL = Layer("max_pool2d", 2, 3, 9, 9, R=2, S=2, stride=(2, 2))
FPROP, DGRAD, WGRAD = (tune.problem_of(CONV, name, torch.float32, "nchw") for name in CONV.passes)

# The tensors of FPROP.
X = torch.randn(2, 3, 9, 9)
W = torch.randn(4, 3, 3, 3)


def entry(*names: str, backend: str = "emulator") -> Entry:
    """Candidates from the fastest to the slowest; a name without a slash is torch."""
    candidates = {name if name == "torch" else f"{backend}/{name}": 10.0 + place for place, name in enumerate(names)}
    winner = next(iter(candidates)).partition("/")[0]
    kernel = next((name for name in names if name != "torch"), "")
    return Entry(winner, kernel, candidates, "2026-03-04T05:06:07+00:00")


def not_planned(problem: Problem) -> str:
    """A kernel that can run the problem and that the plan does not choose."""
    planned = problem.plan()["kernel"]
    candidates, _ = tune.candidates_for(problem, "emulator")
    return next(candidate.kernel for candidate in candidates if candidate.kernel not in ("", planned))


def launches(call: Callable[[], Any]) -> list[str]:
    with trace() as launched:
        call()
    return launched
