"""The processes that train one model together, as torchrun starts them: who is who, and what they tell each other.

They talk through gloo between CPUs and NCCL between GPUs. A process that ends breaks the connections of the others, whose
next exchange then fails: nobody waits for the dead.
"""

# No postponed annotations here: DistributedDataParallel reads those of its hook.
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """This process among `count` that do one training run; every method but `share` is called by all of them at once."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of `rows`: consecutive ones; the numbers of two processes differ by one at most."""
        return rows.tensor_split(self.count)[self.rank]

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes, in every one the same bits."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return sums.tolist()

    def gather(self, mine: _T) -> list[_T]:
        """What each process gave, by rank."""
        if self.count == 1:
            return [mine]
        everyones: list[Any] = [None] * self.count
        distributed.all_gather_object(everyones, mine)
        return everyones

    def parallel(self, model: nn.Module) -> nn.Module:
        """`model` in DistributedDataParallel: gradients are averaged, buffers are the first process's at each forward."""
        if self.count == 1:
            return model
        parallel = nn.parallel.DistributedDataParallel(model)
        parallel.register_comm_hook(self.count, _mean_in_order())
        return parallel

    def equal_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: BatchNorm's statistics are each process's own after a step."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


ALONE = Processes()


def _mean_in_order() -> Callable[..., Any]:
    """A hook for DistributedDataParallel: the mean of the processes' gradients, summed by rank.

    An all-reduce adds in an order that depends on where a number lies in its bucket, and the buckets are laid out anew after
    the first step. With three processes or more, a resumed run would not have the bits of an unbroken one.
    """

    def hook(count: int, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
        mine = bucket.buffer()
        everyones = [torch.empty_like(mine) for _ in range(count)]
        work = distributed.all_gather(everyones, mine, async_op=True)
        assert work is not None, "this process is one of the group"

        def mean(_: object) -> Tensor:
            total = everyones[0]
            for gradients in everyones[1:]:
                total += gradients
            return total.div_(count)

        return work.get_future().then(mean)

    return hook


def lost_connection(error: BaseException) -> bool:
    """Whether `error` is torch's when another process has ended."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes of this run, connected inside the block: those of torchrun's variables, or this one alone.

    Raises ConnectionError where the variables are incomplete or nobody answers at their address.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    try:
        distributed.init_process_group()
    except (ValueError, RuntimeError) as error:
        raise ConnectionError(f"the processes of this run cannot meet: {str(error).splitlines()[0]}") from error
    yield Processes(distributed.get_rank(), distributed.get_world_size())
    # Not after an error: to close in order takes the others, and the end of this process closes everything.
    distributed.destroy_process_group()
