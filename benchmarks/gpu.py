"""Everything that only a GPU can tell, in one go of under ten minutes: what `make gpu` runs.

    python benchmarks/gpu.py                 every part that is not done yet
    python benchmarks/gpu.py bench           this part, again if it is done
    python benchmarks/gpu.py --rehearse      the same commands at toy size on the CPU, to try the plumbing

Nothing has to be prepared but a Python with torch. Libraries in cnnkernels/lib are used as they are, wherever they were
built; without them they are built here for this GPU, which takes nvcc and CMake. The package is not installed.

Results go to $OUT, else to benchmarks/results: the store, gpu.log with everything that was printed, gpu.json with what is
done. Each part has a time limit; one that runs over is interrupted, keeps what it has, and goes on the next time. A build
comes first where one is needed, and can be had by itself: `python benchmarks/gpu.py build`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

try:
    import click
except ImportError:
    sys.exit(f"{sys.executable} lacks click: pip install click rich numpy pytest hypothesis")

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("libcnnkernels_emulator.so", "libcnnkernels_cuda.so")

# Of our kernels: time, DRAM traffic, throughput of both sides, occupancy, registers, shared-memory conflicts.
NCU_METRICS = (
    "gpu__time_duration.sum,dram__bytes.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,"
    "sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active,"
    "launch__registers_per_thread,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
)


@dataclass(frozen=True)
class Step:
    """A command, its time limit in seconds, and what it needs: Python modules, and programs without which it is left out."""

    command: tuple[str, ...]
    seconds: int
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    keep: str = ""  # a file in the output folder that its standard output goes to, instead of the log
    environment: tuple[tuple[str, str], ...] = ()


# Without torch's cache of blocks, which would make an access past a tensor's end one inside the same block.
_EXACT_ALLOCATIONS = (("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),)
# What the plan chooses: whether `tune` has run already must not change what is measured.
_PLANNED = (("CNNKERNELS_TUNING", "0"),)


def parts(out: Path, rehearse: bool) -> dict[str, tuple[Step, ...]]:
    """The parts, in the order in which they matter. Their limits leave two of the ten minutes for a build."""
    python = sys.executable
    cli = (python, "-m", "cnnkernels.cli")
    backend = "emulator" if rehearse else "cuda"
    suite = ("--suite", "lenet5", "--batch", "2", "--samples", "3") if rehearse else ("--suite", "core")
    tests = [python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    if find_spec("xdist"):
        tests += ["-n", "6"]
    if not find_spec("expecttest"):
        tests += ["--ignore", "tests/test_opinfo.py"]  # torch's own samples import it
    sanitized = (*cli, "verify", "--backend", backend, "--quick", "--dtype", "f32")
    bench = (*cli, "bench", "--results", str(out), "--resume")
    ours_and_torch = ("--provider", backend, "--provider", "torch-[el]*")
    compiled = () if rehearse else ("--provider", "torch-compile")
    return {
        "tests": (
            Step(tuple(tests), 110, ("pytest", "hypothesis")),
            Step((*cli, "verify", "--backend", backend, *(["--quick"] if rehearse else [])), 20),
            Step(("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", *sanitized), 50, (),
                 ("compute-sanitizer",), environment=_EXACT_ALLOCATIONS),
            Step(("compute-sanitizer", "--tool", "racecheck", "--error-exitcode", "9", *sanitized, "--op", "conv2d"), 40, (),
                 ("compute-sanitizer",)),
        ),
        "bench": (
            # A compiled pooling is quick to compile and hard to beat; a convolution's search takes minutes for all of them.
            Step((*bench, *suite, "--metric", "time", "--pass", "forward", "--pass", "backward", *ours_and_torch, *compiled,
                  "--budget", "35"), 50, environment=_PLANNED),
            Step((*bench, *suite, "--metric", "time", "--pass", "fprop", "--pass", "dgrad", "--pass", "wgrad", *ours_and_torch,
                  "--budget", "65"), 80, environment=_PLANNED),
            Step((*bench, "--suite", "lenet5", "--metric", "latency", "--pass", "fprop", "--pass", "forward", *ours_and_torch,
                  "--budget", "10"), 20, environment=_PLANNED),
        ),
        "models": (
            Step((*bench, "--model", "lenet5", "--batch", "2" if rehearse else "64", "--metric", "model", "--samples", "20",
                  "--provider", backend, "--provider", "torch-eager"), 30, environment=_PLANNED),
        ),
        "tune": (
            Step((*cli, "tune", *(("--suite", "lenet5", "--batch", "2") if rehearse else ("--suite", "core")),
                  "--backend", backend, "--budget", "5" if rehearse else "25"), 35),
        ),
        "profile": (
            Step(("ncu", "--clock-control", "none", "--csv", "--metrics", NCU_METRICS, "--kernel-name-base", "demangled",
                  "-k", "regex:cnn", python, str(Path(__file__)), "--launch-once"), 45, (), ("ncu",), "profile.csv"),
        ),
    }  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("part", required=False)
@click.option("--rehearse", is_flag=True, envvar="REHEARSE", help="Toy sizes on the CPU's emulator.")
@click.option("--launch-once", is_flag=True, hidden=True, help="Run a layer of each family once: what ncu looks at.")
def main(part: str | None, rehearse: bool, launch_once: bool) -> None:
    """Run every PART that is not done yet, or the one named: build, tests, bench, models, tune, profile."""
    if launch_once:
        return run_each_family_once()
    out = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    everything = parts(out, rehearse)
    if part is not None and part not in ("build", *everything):
        raise click.BadParameter(f"{part!r} is none of build, {', '.join(everything)}", param_hint="PART")
    check_python(rehearse)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}
    environment.setdefault("CNNKERNELS_TUNING_DIR", str(out / "tuning"))
    with (out / "gpu.log").open("ab") as log:
        build(log, environment, rehearse)
        state = State(out / "gpu.json", fingerprint(rehearse))
        failed = []
        for name in everything if part is None else [name for name in everything if name == part]:
            if part is None and state.is_done(name):
                click.echo(f"{name}: done already; `make gpu PART={name}` runs it again")
                continue
            start = time.monotonic()
            codes, left_out = [], []
            for step in everything[name]:
                lacking = [program for program in step.programs if shutil.which(program) is None]
                if lacking:
                    left_out += [f"{', '.join(lacking)} missing: {' '.join(step.command)}"]
                    click.secho(f"{name}: left out, {left_out[-1]}", fg="yellow")
                else:
                    codes.append(run(step, name, out, log, environment))
            state.finish(name, codes, left_out, time.monotonic() - start)
            failed += [name] if any(codes) else []
    click.echo(f"results in {out}")
    if failed:
        raise click.ClickException(f"not all went well: {', '.join(failed)}; see {out / 'gpu.log'}")
    return None


def check_python(rehearse: bool) -> None:
    missing = [name for name in ("torch", "numpy", "rich") if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"{sys.executable} lacks {', '.join(missing)}: pip install {' '.join(missing)}")
    import torch

    if not rehearse and not torch.cuda.is_available():
        raise click.ClickException("torch sees no CUDA device; --rehearse (REHEARSE=1) tries the plumbing on a CPU")


def build(log: BinaryIO, environment: dict[str, str], rehearse: bool) -> None:
    """What is missing of the libraries and of the Python module. The module alone depends on the Python version."""
    needed = LIBRARIES[:1] if rehearse else LIBRARIES
    there = all((ROOT / "cnnkernels" / "lib" / name).is_file() for name in needed)
    imports = [sys.executable, "-c", "import cnnkernels._C"]
    if there and subprocess.run(imports, env=environment, cwd=ROOT, capture_output=True, check=False).returncode == 0:
        return
    if shutil.which("cmake") is None:
        if there:
            click.echo("cmake is missing: without cnnkernels._C, which it builds, verify and tune cannot run")
            return
        raise click.ClickException(
            "cnnkernels/lib has no libraries, and there is no cmake to build them: pip install cmake"
        )
    options = (
        ["-DCNNKERNELS_PREBUILT=ON"] if there else ["-DCNNKERNELS_TESTS=OFF", *([] if rehearse else cuda_options())]
    )
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    folder = ROOT / "build" / f"gpu-{sys.implementation.cache_tag}{'-module' if there else ''}"
    for command in (
        ["cmake", *generator, "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}",
         f"-DCMAKE_INSTALL_PREFIX={ROOT}", *options],
        ["cmake", "--build", str(folder), "--parallel"],
        ["cmake", "--install", str(folder)],
    ):  # fmt: skip
        code = execute(command, 240, log, environment)
        if code:
            raise click.ClickException(f"the build failed ({code}): {' '.join(command)}")


def cuda_options() -> list[str]:
    import torch

    major, minor = torch.cuda.get_device_capability()
    # From Hopper on, a kernel may use instructions of its own architecture alone: 90a, not 90.
    return ["-DCNNKERNELS_CUDA=ON", f"-DCNNKERNELS_CUDA_ARCH={major}{minor}{'a' if major == 9 else ''}"]


def run(step: Step, part: str, out: Path, log: BinaryIO, environment: dict[str, str]) -> int:
    """Run a step; its exit code, 127 where a Python module is missing."""
    text = " ".join(step.command)
    lacking = [name for name in step.modules if find_spec(name) is None]
    if lacking:
        click.secho(f"{part}: cannot run, pip install {' '.join(lacking)}: {text}", fg="red")
        return 127
    click.secho(f"{part}: {text}", bold=True)
    environment = environment | dict(step.environment)
    if not step.keep:
        return execute(step.command, step.seconds, log, environment)
    with (out / step.keep).open("wb") as kept:
        return execute(step.command, step.seconds, kept, environment, echo=False)


def execute(
    command: tuple[str, ...] | list[str], seconds: float, log: BinaryIO, environment: dict[str, str], echo: bool = True
) -> int:
    """The command's exit code; 124 where it ran over. It is interrupted first, so that it can store what it has."""
    log.write(f"\n$ {' '.join(command)}\n".encode() if echo else b"")
    log.flush()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        click.secho(f"over {seconds:.0f} s: interrupted", fg="red")
        for number, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, number)
                process.wait(patience)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if echo:
                click.echo(line.decode(errors="replace"), nl=False)
        code = process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(10)
        raise
    finally:
        timer.cancel()
        log.flush()
    return 124 if expired else code


class State:
    """gpu.json: which parts are done, for one state of the libraries and the package."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        try:
            self.parts = json.loads(path.read_text())
        except (OSError, ValueError):
            self.parts = {}

    def is_done(self, part: str) -> bool:
        entry = self.parts.get(part, {})
        return entry.get("fingerprint") == self.fingerprint and not any(entry.get("codes", [1]))

    def finish(self, part: str, codes: list[int], left_out: list[str], seconds: float) -> None:
        entry = {"fingerprint": self.fingerprint, "codes": codes, "left_out": left_out, "seconds": round(seconds, 1)}
        self.parts[part] = entry
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.parts, indent=1))
        temporary.replace(self.path)


def fingerprint(rehearse: bool) -> str:
    """Of what is measured: the libraries and the Python sources."""
    digest = hashlib.sha256(b"rehearsal" if rehearse else b"")
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def sources() -> Iterator[Path]:
    for folder, pattern in (("cnnkernels/lib", "libcnnkernels_*.so"), ("cnnkernels", "**/*.py"), ("tests", "*.py")):
        yield from sorted((ROOT / folder).glob(pattern))


def run_each_family_once() -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    from cnnkernels.bench import suites
    from cnnkernels.bench.flags import full_precision
    from cnnkernels.bench.operands import Case, make_operands
    from cnnkernels.bench.providers import providers

    device = torch.device("cuda")
    ours = next(provider for provider in providers() if provider.name == "cuda")
    first = {entry.problem.family: entry.problem for entry in reversed(suites.load("core").entries)}
    with full_precision():
        for layer in first.values():
            for name in layer.passes:
                case = Case(layer, name, torch.bfloat16)
                if ours.refuse(case, device, "channels_last") is None:
                    generator = torch.Generator(device).manual_seed(0)
                    ours.make_call(case, make_operands(case, "channels_last", device, generator))()
                    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
