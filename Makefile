# `make demo` and `make test` do everything on a fresh machine: virtual environment, installation, build, run.
# PYTHON=... chooses the interpreter, TORCH=... the torch to develop with (torch==2.13.0), PYTEST=... more arguments for pytest.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(abspath $(VENV))/bin
SOURCES := CMakeLists.txt setup.py pyproject.toml $(shell find csrc tests/cpp -type f)
CXX_FILES := $(shell find csrc tests/cpp tests/planted tests/counters -type f)
# Without a GPU the CUDA library could not run: the demo and the tests do without it, unless `make build` has made it.
CUDA := $(if $(wildcard cnnkernels/lib/libcnnkernels_cuda.so)$(shell nvidia-smi -L 2>/dev/null),AUTO,OFF)
# The demo does without the emulator that checks and counts, too.
CHECKED := $(if $(wildcard cnnkernels/lib/libcnnkernels_emulator_checked.so),ON,OFF)

# Byte code is compiled when a module is first imported: half of torch never is.
export PIP_NO_COMPILE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
INSTALL = PATH="$(BIN):$$PATH" $(BIN)/pip install -q --no-build-isolation -e

.PHONY: demo test sanitize build bench report gpu lint fmt clean

demo: $(VENV)/.package
	$(BIN)/cnnkernels train lenet5 --data digits --out runs/demo

test: $(VENV)/.developed
	$(BIN)/python -m pytest -q $(PYTEST)

# Every kernel under every check of the checked emulator: races, bad accesses, uninitialised reads.
sanitize: $(VENV)/.developed
	$(BIN)/cnnkernels check

# All there is: the CUDA library too, for every architecture, where nvcc is.
build: $(VENV)/.torch
	CNNKERNELS_CUDA=AUTO $(INSTALL) '.[train,report,dev]'
	@touch $(VENV)/.package $(VENV)/.developed

# BENCH="--suite resnet50 --dtype bf16": what `cnnkernels bench` is given.
BENCH ?= --suite lenet5
bench: $(VENV)/.developed
	$(BIN)/cnnkernels bench $(BENCH)

report: $(VENV)/.developed
	$(BIN)/cnnkernels report

# On a machine with a GPU, with whatever Python has torch there: nothing is installed. PART=tests|bench|models|tune|profile.
gpu:
	$(PYTHON) benchmarks/gpu.py $(PART)

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

fmt: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf build dist runs *.egg-info cnnkernels/lib cnnkernels/_C*.so

$(VENV)/.torch:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "make: $(PYTHON) lacks venv (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH) "setuptools>=77" "cmake>=3.24" ninja
	@touch $@

# Built and installed in place, for running and for developing.
$(VENV)/.package: $(VENV)/.torch $(SOURCES)
	CNNKERNELS_CUDA=$(CUDA) CNNKERNELS_CHECKED=$(CHECKED) $(INSTALL) '.[train,report]'
	@touch $@

$(VENV)/.developed: $(VENV)/.torch $(SOURCES)
	CNNKERNELS_CUDA=$(CUDA) $(INSTALL) '.[train,report,dev]'
	@touch $@ $(VENV)/.package
