"""Timing calls: by CUDA graph and events on a GPU, by the wall clock on a CPU; and the clocks that a GPU runs at.

A sample times a whole round of calls, each on buffers of its own, and is seconds per call. On a GPU the round is one
CUDA graph: what is timed is the kernels back to back, without Python, and a call that leaves work on another stream
cannot be captured at all. Every call's result is kept until the round ends: otherwise the allocator would hand the
same block to all of them, and it would never leave the L2.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch

Call = Callable[[], Any]
Clocks = dict[str, float]

# A round shorter than this is repeated within the graph: the events that bracket it resolve about half a microsecond.
_SHORTEST_ROUND = 1e-3
_LONGEST_REPETITION = 512
# Clock cycles that the GPU is kept busy for while the CPU sends the graph: otherwise the first event is stamped at once, and
# the time until the graph arrives counts as the kernels'. 50 us at 2 GHz.
_HEAD_START = 100_000


class CudaTimer:
    """Rounds of `calls` as one CUDA graph. `results` are the last round's, one per call."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = list(calls)
        # Side stream: capture needs one, and autograd runs a backward on the stream of its forward. See `bind_stream`.
        self._stream = bind_stream()
        with torch.cuda.stream(self._stream):
            for call in self.calls[:2]:
                call()
            self._stream.synchronize()
            repetitions = self._repetitions()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                for _ in range(repetitions):
                    self.results = [call() for call in self.calls]
        self.calls_per_round = repetitions * len(self.calls)

    def _repetitions(self) -> int:
        """Rounds per graph, from a graph of one round."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            kept = [call() for call in self.calls]
        graph.replay()
        seconds = max(self._seconds(graph), 1e-7)
        del kept
        return min(_LONGEST_REPETITION, max(1, math.ceil(_SHORTEST_ROUND / seconds)))

    def _seconds(self, graph: torch.cuda.CUDAGraph) -> float:
        """Of one replay, on the current stream."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(_HEAD_START)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3

    def sample(self) -> float:
        with torch.cuda.stream(self._stream):
            return self._seconds(self._graph) / self.calls_per_round

    def result(self, place: int) -> Any:
        """Run a round on whatever the buffers hold now; the result of call `place`."""
        self.sample()
        return self.results[place]

    def close(self) -> None:
        self._graph.reset()
        self.results = []

    def __enter__(self) -> CudaTimer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class CpuTimer:
    """One call per sample, going round `calls`."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = list(calls)
        self._next = 0

    def sample(self) -> float:
        call = self.calls[self._next]
        self._next = (self._next + 1) % len(self.calls)
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def result(self, place: int) -> Any:
        """Run call `place` on whatever its buffers hold now; its result."""
        return self.calls[place]()

    def close(self) -> None:
        self.calls = []

    def __enter__(self) -> CpuTimer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


Timer = CudaTimer | CpuTimer


def make_timer(device: torch.device, calls: Sequence[Call]) -> Timer:
    return CudaTimer(calls) if device.type == "cuda" else CpuTimer(calls)


_STREAMS: dict[int, torch.cuda.Stream] = {}


def bind_stream() -> torch.cuda.Stream:
    """The one stream of this device on which calls are made ready, captured and timed."""
    device = torch.cuda.current_device()
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream()
    return _STREAMS[device]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_FEWEST_ROUNDS = 3


def take_turns(samplers: Sequence[Callable[[], object]], samples: int, seconds: float) -> None:
    """Call each sampler up to `samples` times, A B C C B A, so that drift meets all alike.

    Whoever has used up its own `seconds` leaves, after three rounds at the earliest; the others go on.
    """
    spent = [0.0] * len(samplers)
    for rounds in range(samples):
        left = [place for place in range(len(samplers)) if rounds < _FEWEST_ROUNDS or spent[place] < seconds]
        for place in left if rounds % 2 == 0 else reversed(left):
            start = time.perf_counter()
            samplers[place]()
            spent[place] += time.perf_counter() - start


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation; `share` in [0, 1]."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


_CLOCK_FIELDS = {
    "clocks.sm": "sm_mhz",
    "clocks.mem": "mem_mhz",
    "power.draw": "power_w",
    "temperature.gpu": "temperature_c",
}


def read_clocks(device: torch.device) -> Clocks:
    """What the GPU runs at now: sm_mhz, mem_mhz, power_w, temperature_c. Empty where no tool says so."""
    if device.type != "cuda":
        return {}
    index = device.index if device.index is not None else torch.cuda.current_device()
    try:
        return _clocks_by_nvml(index)
    except Exception:  # no binding of NVML, or one that does not know this driver: ask the tool that comes with it
        return _clocks_by_smi(index)


def _uuid(index: int) -> str:
    """What the driver calls the device; CUDA_VISIBLE_DEVICES may have numbered it anew."""
    properties: Any = torch.cuda.get_device_properties(index)
    return f"GPU-{properties.uuid}"


def _clocks_by_nvml(index: int) -> Clocks:
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(index))
    readings: dict[str, Callable[[], float]] = {
        "sm_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "mem_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
    }
    clocks = {}
    for name, read in readings.items():
        with suppress(pynvml.NVMLError):  # a virtual machine may not tell everything
            clocks[name] = float(read())
    return clocks


def _clocks_by_smi(index: int) -> Clocks:
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ",".join(_CLOCK_FIELDS)
    command = ["nvidia-smi", f"--id={_uuid(index)}", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    clocks = {}
    for name, value in zip(_CLOCK_FIELDS.values(), text.split(","), strict=False):
        with suppress(ValueError):  # "[N/A]"
            clocks[name] = float(value)
    return clocks
