# `make train` and `make test` do everything from a fresh clone: environment, build, run.
# They need Python 3.11 or later, a C compiler and make.

VENV   ?= .venv
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c requirements-dev.lock
BUILD  := $(PIP) --no-build-isolation
# The builders and cython-lint call other tools by name.
export PATH := $(abspath $(BIN)):$(PATH)

SANITIZED    ?= tests.torture K6
C_FILES      := $(wildcard ext/*.c ext/*.h)
PYTHON_FILES := cnnctl docs tests ext/build_backend.py
SOURCES      := $(C_FILES) $(wildcard ext/*.py* ext/meson.build) meson.build meson.options pyproject.toml \
	requirements-dev.lock

.PHONY: help train test torture sanitize mutants zoo bench docs pictures wheel try-wheel lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

ifneq ($(wildcard $(VENV)/python),)
ifneq ($(or $(shell cat $(VENV)/python),$(CURDIR)),$(CURDIR))
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
$(error this folder was moved or copied, and its environment with it: run "make clean", then again)
endif
endif
endif

train: $(VENV)/installed ## build, then train the quick-start network
	$(BIN)/cnnctl train configs/quickstart.yaml

test: $(VENV)/developer ## build, then run the tests
	$(BIN)/python -m pytest --numprocesses auto

torture: $(VENV)/developer ## prove every promise at full length: some hours
	$(BIN)/python -m tests.torture

sanitize: $(VENV)/developer ## build kernels that check every access, then run the tests of memory safety
	test -f build/sanitize/meson/build.ninja || CC=gcc $(BIN)/meson setup build/sanitize/meson \
		-Dsanitize=true -Dkernel_optimization=1 \
		-Dpython.platlibdir=$(CURDIR)/build/sanitize/site -Dpython.purelibdir=$(CURDIR)/build/sanitize/site
	$(BIN)/meson install -C build/sanitize/meson --quiet
	ln -sfn $(CURDIR)/tests build/sanitize/site/tests
	cd build/sanitize/site && CC=gcc $(abspath $(BIN))/python -m tests.sanitized $(SANITIZED)

mutants: $(VENV)/developer ## plant faults, one at a time: every one has to be found
	$(BIN)/python -m tests.mutants

zoo: $(VENV)/developer ## train every shipped config to its end, and write what it reaches: some hours
	$(BIN)/python -m tests.zoo

pictures: $(VENV)/developer ## record the README's terminal and photograph its report: needs MNIST and a Chromium
	$(BIN)/python -m docs.pictures

wheel: $(VENV)/developer ## an sdist, and a wheel made from it alone, in build/dist
	rm -rf build/dist
	$(BIN)/python -m build --no-isolation --skip-dependency-check --outdir build/dist

try-wheel: wheel ## use that wheel in a bare environment, without a compiler
	tests/try_wheel.sh build/dist $(BIN)/python

bench: $(VENV)/developer ## measure every speed that the README and docs/engine.md show, and write it there
	$(BIN)/python -m tests.speed

docs: $(VENV)/developer ## the documentation as web pages, build/docs/index.html
	$(BIN)/sphinx-build -W -n --keep-going -q -d build/doctrees docs build/docs
	@echo build/docs/index.html

lint: $(VENV)/developer ## style, types and formatting of Python, Cython and C
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/cython-lint ext/_kernels.pyx
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: $(VENV)/developer ## let the formatters have their way
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/clang-format -i $(C_FILES)

lock: ## choose the newest versions for the development environment
	uv pip compile --universal --python-version 3.11 --upgrade --extra dev --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml -o requirements-dev.lock

clean: ## remove the environment and everything built
	rm -rf $(VENV) build

$(VENV)/python:
	@test -n "$(PYTHON)" || { echo "make: cnnctl needs Python 3.11 or later; set PYTHON=/path/to/python" >&2; exit 1; }
	@for compiler in $(firstword $(CC)) gcc clang; do command -v $$compiler >/dev/null && exit; done; \
		echo "make: cnnctl needs a C compiler; on Debian and Ubuntu: apt install gcc" >&2; exit 1
	@rm -rf build/editable  # made by the interpreter of an environment that is gone
	$(PYTHON) -m venv $(VENV)
	@echo "$(CURDIR)" > $@

$(VENV)/installed: $(VENV)/python $(SOURCES)
	$(PIP) meson-python meson ninja Cython
	@echo "compiling the kernels: a minute or two"
	$(BUILD) -e .
	@touch $@

$(VENV)/developer: $(VENV)/installed
	$(BUILD) -e '.[dev]'
	@touch $@
