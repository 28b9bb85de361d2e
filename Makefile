# `make demo` and `make test` do everything on a fresh machine: virtual environment, installation, build, run.
# PYTHON=... chooses the interpreter. With nvcc on PATH, `make build` compiles the CUDA library too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
SOURCES := CMakeLists.txt setup.py pyproject.toml $(shell find csrc tests/cpp -type f)
# Compiling for a GPU that is not there would only make the demo slow; `make build` does it.
HAS_GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)

.PHONY: demo test build lint fmt clean

demo: $(VENV)/.emulator
	$(BIN)/cnnkernels train lenet5 --data digits --out runs/demo

test: $(VENV)/.emulator
	$(BIN)/python -m pytest -q

# Everything, the CUDA library for all architectures included where nvcc is.
build: $(VENV)/.tools
	CNNKERNELS_CUDA=AUTO $(BIN)/pip install -q --no-build-isolation -e .[dev]
	@touch $(VENV)/.emulator

lint: $(VENV)/.emulator
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests/cpp -type f)

fmt: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc tests/cpp -type f)

clean:
	rm -rf build dist runs *.egg-info cnnkernels/lib cnnkernels/_C*.so

$(VENV)/.tools:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH) "setuptools>=77" "cmake>=3.24" ninja clang-format ruff
	@touch $@

$(VENV)/.emulator: $(VENV)/.tools $(SOURCES)
	CNNKERNELS_CUDA=$(if $(HAS_GPU),AUTO,OFF) PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install -q --no-build-isolation -e .[dev]
	@touch $@
