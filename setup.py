"""A thin front of CMakeLists.txt: runs it and puts what it builds, and the benchmark suites, into the package.

Environment: CNNKERNELS_CUDA (AUTO, ON, OFF), CNNKERNELS_CUDA_ARCH ("80;90a;100"), CNNKERNELS_EMULATOR_MARCH, CNNKERNELS_CHECKED
(ON, OFF: the emulator that checks and counts), CNNKERNELS_TESTS, MAX_JOBS (parallel compilations).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
OPTIONS = (
    "CNNKERNELS_CUDA",
    "CNNKERNELS_CUDA_ARCH",
    "CNNKERNELS_EMULATOR_MARCH",
    "CNNKERNELS_CHECKED",
    "CNNKERNELS_TESTS",
)


class CMakeBuild(build_ext):
    """Builds every target of CMakeLists.txt; the one Extension below only tells setuptools that there is something to build."""

    def run(self) -> None:
        for tool, hint in (("cmake", "pip install cmake"), ("ninja", "pip install ninja")):
            if shutil.which(tool) is None:
                sys.exit(f"cnnkernels: {tool} is not on PATH: {hint}")
        if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX") or "c++", "g++", "clang++")):
            sys.exit(
                "cnnkernels: no C++ compiler: install g++ 11 or newer (Debian, Ubuntu: apt-get install g++), or set CXX"
            )
        prefix = ROOT if self.editable_mode or self.inplace else Path(self.build_lib).resolve()
        build = ROOT / "build"
        # What is not set has its default, not the value of an earlier build.
        options = [f"-D{name}={os.environ[name]}" if name in os.environ else f"-U{name}" for name in OPTIONS]
        configure = [
            "cmake",
            "-G",
            "Ninja",
            "-S",
            ROOT,
            "-B",
            build,
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
        ]
        jobs = os.environ.get("MAX_JOBS")
        for command in (
            [*configure, *options],
            ["cmake", "--build", build, *(["--parallel", jobs] if jobs else [])],
            ["cmake", "--install", build],
        ):
            if subprocess.call([str(part) for part in command]) != 0:
                sys.exit("cnnkernels: the build failed; the messages above say where")


class BuildWithSuites(build_py):
    """Puts the benchmark suites, which a checkout has beside the package, into the package that is built."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            suites = Path(self.build_lib) / "cnnkernels" / "bench" / "suites"
            suites.mkdir(parents=True, exist_ok=True)
            for file in (ROOT / "benchmarks" / "suites").glob("*.json"):
                shutil.copy(file, suites)


setup(
    ext_modules=[Extension("cnnkernels._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": BuildWithSuites},
)
