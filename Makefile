# The two commands, and a few more. Everything is set up on the way: a virtual environment in .venv, the build tools in
# it, the extension module, the C++ tests. What is up to date is not done again.
#
# On a bare machine: CPython 3.11 or newer with headers, a C++ compiler and make are enough.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON ?=
export PYTHON JOBS
export PATH := $(CURDIR)/$(BIN):$(PATH)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
export CTEST_PARALLEL_LEVEL ?= $(JOBS)

# What the installed package is made of.
SOURCES := $(shell find core runtime extension lab python cmake -type f ! -name '*.pyc' 2>/dev/null) \
	CMakeLists.txt pyproject.toml README.md LICENSE
CXX_FILES = $(shell find core runtime extension lab tests benchmarks examples -name '*.cpp' -o -name '*.hpp')
PYTHON_FILES = python tests benchmarks examples tools noxfile.py

.PHONY: help
help: ## List the targets
	@echo "make <target> [PYTHON=python3.13] [JOBS=2]"
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  \1 | \2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

$(BIN)/.tools: tools/bootstrap
	@tools/bootstrap $(VENV)
	@touch $@

# Without build isolation the build tools keep their path, and a rebuild compiles only what changed.
$(BIN)/.installed: $(BIN)/.tools $(SOURCES)
	@echo "culm: building and installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --no-build-isolation '.[cli,lab,test]'
	@touch $@

$(BIN)/.linters: $(BIN)/.tools pyproject.toml
	@$(BIN)/python tools/extra lint | xargs -d '\n' $(BIN)/python -m pip install --quiet
	@touch $@

.PHONY: install
install: $(BIN)/.installed ## Build culm and install it into .venv

.PHONY: demo
demo: $(BIN)/.installed ## Build, install, and run ten thousand connections on one OS thread
	@$(BIN)/culm demo

.PHONY: test
test: cxx-test interpreter-test python-test left-out ## Build, install, and run every fast test, C++ and Python

.PHONY: left-out
left-out: cxx-test interpreter-test python-test
	@if [ -s build/dev/left-out.txt ]; then echo; echo "LEFT OUT of this run:"; sed 's/^/  /' build/dev/left-out.txt; fi

.PHONY: cxx-test
cxx-test: $(BIN)/.tools ## The fast C++ tests alone
	@tools/cxx-tests dev

.PHONY: python-test
python-test: $(BIN)/.installed ## The fast Python tests and the layer rules alone
	@tools/python-tests $(BIN)/python -q -m 'not slow' $(ARGS)

.PHONY: interpreter-test
interpreter-test: $(BIN)/.installed ## The tests of the layer that touches the interpreter's internals alone
	@tools/interpreter-tests $(BIN)/python -q

MINUTES ?= 10
.PHONY: stress
stress: $(BIN)/.installed ## Random fibers with random seeds for MINUTES=10; SEED=n begins with that one
	@$(BIN)/python tests/stress/stress.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: asan
asan: $(BIN)/.tools ## The C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/cxx-tests asan

.PHONY: tsan
tsan: $(BIN)/.tools ## The C++ tests under ThreadSanitizer
	@tools/cxx-tests tsan

.PHONY: aarch64
aarch64: $(BIN)/.tools ## The C++ tests, cross-built for aarch64, under qemu-user
	@tools/cxx-tests aarch64

.PHONY: bench
bench: $(BIN)/.tools $(BIN)/.installed ## Build and run the C++ benchmarks; benchmarks/README.md has the others
	@tools/cxx-benchmarks

ROUNDS ?= 5
.PHONY: bench-compare
bench-compare: $(BIN)/.installed ## Every figure of the working tree as a ratio to that of BASE=rev, in ROUNDS=5; ARGS="switch --json f"
	@[ -n "$(BASE)" ] || { echo "culm: name the revision to compare with: make bench-compare BASE=rev" >&2; exit 2; }
	@$(BIN)/python benchmarks/compare.py --base "$(BASE)" --rounds $(ROUNDS) $(ARGS)

.PHONY: lint
lint: $(BIN)/.linters $(BIN)/.installed ## Check formatting, style and types
	@$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	@$(BIN)/ruff check $(PYTHON_FILES)
	@$(BIN)/ruff format --check $(PYTHON_FILES)
	@$(BIN)/mypy

.PHONY: format
format: $(BIN)/.linters ## Lay the code out as `make lint` wants it
	@$(BIN)/clang-format -i $(CXX_FILES)
	@$(BIN)/ruff check --fix $(PYTHON_FILES)
	@$(BIN)/ruff format $(PYTHON_FILES)

.PHONY: clean
clean: ## Remove what was built, and .venv; keeps .cache
	rm -rf build $(VENV)
