"""What a call of functional.conv2d costs above the raw operator: python benchmarks/overhead.py. Needs no GPU.

The operator is replaced by one that only allocates its result, so that what is left is Python: checks, choice of backend,
memory format, autograd. Microseconds, the least of several rounds of many calls, on one thread.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from cnnkernels import functional, ops

ROUNDS, CALLS = 9, 3000


def microseconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        best = min(best, (time.perf_counter() - start) / CALLS)
    return best * 1e6


def main() -> None:
    torch.set_num_threads(1)
    x, w, b = torch.randn(1, 1, 1, 1), torch.randn(1, 1, 1, 1), torch.randn(1)
    learned = w.clone().requires_grad_()

    def allocate(*args: object, **kwargs: object) -> Tensor:
        return torch.empty_like(x)

    ops.conv2d_fprop = allocate
    raw = microseconds(lambda: ops.conv2d_fprop(x, w, b, (1, 1), (1, 1), (0, 0), (1, 1), 1, False))
    plain = microseconds(lambda: functional.conv2d(x, w, b, backend="emulator"))
    with_grad = microseconds(lambda: functional.conv2d(x, learned, b, backend="emulator"))
    print(f"above the raw operator: {plain - raw:.1f} us without gradients, {with_grad - raw:.1f} us with them")


if __name__ == "__main__":
    main()
