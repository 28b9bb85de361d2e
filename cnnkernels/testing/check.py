"""Every compiled kernel under every check of the checked emulator: the engine of `cnnkernels check`.

The runs are those of verify.py, on the compact list of check_problems.py: each kernel is forced on each problem in
every order of threads and blocks, must give the same bits in all of them, and the emulator holds each access against
its rules meanwhile. Emulated under checks, a launch has one OS thread; so the work is shared out to processes, one item
(a pass, a dtype, a problem) at a time. Each has the checked emulator, whichever this one has:

    CNNKERNELS_EMULATOR=checked python -m cnnkernels.testing.check FD

takes items from the connection that it was given as a file descriptor and says what comes of them. A kernel that takes its
process down is named, and the rest of the work goes on in another.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from cnnkernels.testing import checked_emulator
from cnnkernels.testing.check_problems import CHECK_PROBLEMS
from cnnkernels.testing.verify import (
    Item,
    KernelPass,
    Order,
    Record,
    Selection,
    items,
    new_records,
    poisoned_memory,
    usual_workers,
    verify_item,
)

# Beside the order they are first run in, which is forward.
ORDERS = (Order("reverse"), Order("random", 1))

# Far more than any run takes: one that takes longer never ends.
_SECONDS_PER_RUN = 120


class CheckError(RuntimeError):
    """The checked emulator does not run here; the text says why."""


def compact_selection(passes: tuple[str, ...] = (), dtypes: tuple[str, ...] = (), kernel: str = "") -> Selection:
    """What to check: the passes, dtypes and kernels asked for, as in :class:`Selection`, on the compact list."""
    return Selection(
        "emulator",
        passes,
        dtypes,
        kernel,
        schedules=True,
        orders=ORDERS,
        values=("normal",),  # not the integers: they are after values, not after memory
        problems=CHECK_PROBLEMS,
    )


def check(
    selection: Selection, workers: int | None = None, advance: Callable[[str, int], None] = lambda _, __: None
) -> list[Record]:
    """Run every selected kernel on every problem under the checked emulator, and return a record for each.

    Leaving early, by an exception too, ends the processes.

    Args:
        workers: how many processes; None for :func:`usual_workers`.
        advance: hears what is being run now, and how many of the :func:`verify.count_cases` items are done.

    Raises:
        CheckError: a process does not begin its work.
    """
    records = new_records(selection)
    waiting = deque(items(selection))
    done = 0
    shared = replace(selection, problems=())  # each item has its own
    team: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(workers or usual_workers(), len(waiting))):
            _hire(team)
        while team:
            for connection in wait(list(team)):
                assert isinstance(connection, Connection)
                worker = team[connection]
                try:
                    message = connection.recv()
                except (EOFError, ConnectionError):
                    del team[connection]
                    for record in worker.died():
                        records[record.subject].add(record)
                    left = worker.left()
                    if left is not None:
                        waiting.appendleft(left)
                    done += left is None
                    if waiting:
                        _hire(team)
                    continue
                if isinstance(message, _Begins):
                    worker.at = message
                    advance(f"{message.subject.kernel}, {message.subject.name}", done)
                    continue
                if isinstance(message, list):
                    for record in message:
                        records[record.subject].add(record)
                    done += 1
                worker.ready, worker.item, worker.at = True, None, None
                if waiting:
                    worker.take(waiting.popleft(), shared)
                else:
                    del team[connection]
                    worker.end()
    finally:
        for worker in team.values():
            worker.end()
    return list(records.values())


@dataclass(frozen=True)
class _Begins:
    """A process says: this run is next."""

    subject: KernelPass
    how: str


class _Worker:
    """A process with the checked emulator, and what it is at."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self.ready = False
        self.item: Item | None = None
        self.at: _Begins | None = None
        environment = checked_emulator.environment() | {"OMP_NUM_THREADS": "1"}  # the cores are taken
        # Beyond the reach of Ctrl-C, which is for us: we end it, wherever in a kernel it is.
        self.process = subprocess.Popen(
            [*COMMAND, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=self.said,
            stderr=self.said,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def take(self, item: Item, selection: Selection) -> None:
        self.item = item
        with suppress(ConnectionError):  # that it has ended is heard of when it is listened to
            self.connection.send((item, selection))

    def died(self) -> list[Record]:
        """What to say of the kernels that were to run, now that the process has ended by itself."""
        self.process.wait()
        self.said.seek(0)
        how = checked_emulator.how_it_ended(
            self.process.returncode, self.said.read().decode(errors="replace"), _SECONDS_PER_RUN
        )
        self.end()
        if not self.ready:
            raise CheckError(f"the checked emulator's process {how}")
        assert self.item is not None
        subjects, when = (self.item.subjects, "") if self.at is None else ((self.at.subject,), f", {self.at.how}")
        failure = f"{self.item.problem}{when}: its process {how}"
        return [Record(subject, problems=1, runs=1, failures=[failure]) for subject in subjects]

    def left(self) -> Item | None:
        """What is left of the item when the process has died of one of its kernels."""
        assert self.item is not None
        if self.at is None:
            return None
        subjects = tuple(subject for subject in self.item.subjects if subject != self.at.subject)
        return replace(self.item, subjects=subjects) if subjects else None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.said.close()


def _hire(team: dict[Connection, _Worker]) -> None:
    """Begin a process. Ctrl-C comes before or after it: in between nobody would know of the process, to end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        worker = _Worker()
        team[worker.connection] = worker
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# What begins a process; the descriptor of its connection follows.
COMMAND = (sys.executable, "-m", "cnnkernels.testing.check")


# The other process.


def work(connection: Connection) -> NoReturn:
    """Do what comes through the connection until it is closed."""
    import torch

    from cnnkernels import ops

    if ops.EMULATOR_MISSING is not None:
        sys.exit(ops.EMULATOR_MISSING)
    from cnnkernels import _C

    if not _C.emulator_is_checked():
        sys.exit("this is not the checked emulator: set CNNKERNELS_EMULATOR=checked")
    torch.set_num_threads(1)

    def begin(subject: KernelPass, how: str) -> None:
        connection.send(_Begins(subject, how))
        signal.alarm(_SECONDS_PER_RUN)

    with poisoned_memory():
        try:
            connection.send("ready")
            while True:
                item, selection = connection.recv()
                records = verify_item(item, selection, begin)
                signal.alarm(0)
                connection.send(records)
        except (EOFError, ConnectionError):
            sys.exit(0)  # nobody is listening any more


if __name__ == "__main__":
    from cnnkernels.testing import check as module  # the messages' types are its, not __main__'s

    module.work(Connection(int(sys.argv[1])))
