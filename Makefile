# The two commands that matter: `make demo` and `make test`. Both bring what they need into this folder: uv into .tools/
# (unless it is on PATH) and everything else into .venv/, from hashed locks. They need python3 (3.11 or newer) and make.
#
#   make demo ARGS="--seconds 5"        arguments for the command
#   make test PYTHON=/usr/bin/python3.12    another Python; a full path finds it everywhere
#   make test JOBS=1                    one test at a time: for a debugger, or a machine that does other things

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
JOBS   ?= 3

SHELL := /bin/bash
BIN   := $(VENV)/bin
UV    := $(or $(shell command -v uv),.tools/bin/uv)
# One stamp per Python version: another PYTHON makes the environment anew, the same one does nothing.
WHICH := import sys; print("%d.%d" % sys.version_info[:2])
STAMP := $(VENV)/.ready-$(shell $(PYTHON) -c '$(WHICH)' 2>/dev/null)

QUICK := tests/drivers/test_*codec*.py tests/drivers/test_*onewire*.py $(foreach name,presence hub commands topics \
         identifiers clock errors log registry config_errors config_layers config_secrets,tests/unit/test_$(name).py)

# Never fetch an interpreter: with no network that is a long wait and an unclear error.
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
unexport VIRTUAL_ENV

.PHONY: help env demo test check quick docs format lint types imports coverage wheel lock clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

env: $(STAMP)  ## .venv with optima-bridge and pip in it, to work in: . .venv/bin/activate

demo: $(STAMP)  ## a simulated store, its real daemon and its MQTT messages (uv run bridge demo)
	@$(BIN)/bridge demo $(ARGS)

test: $(STAMP)  ## all tests (uv run pytest); COVERAGE=1 measures branch coverage, its floor is in pyproject.toml
	@rm -f .coverage .coverage.*
	@$(BIN)/$(if $(COVERAGE),coverage run -m )pytest -n $(JOBS) --dist worksteal $(ARGS)
	@$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/coverage report)

check: lint types imports quick  ## what must hold before a commit, in seconds

quick: $(STAMP)  ## the tests that need no port, no broker and no clock
	@$(BIN)/pytest -q $(QUICK) $(ARGS)

lint: $(STAMP)  ## ruff: format and rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(STAMP)  ## mypy, strict
	@$(BIN)/mypy

imports: $(STAMP)  ## import-linter: imports go down only
	@$(BIN)/lint-imports

coverage:  ## all tests with branch coverage
	@$(MAKE) --no-print-directory test COVERAGE=1

docs: $(STAMP)  ## rewrite the tables in docs/reference that are made from the source
	@$(BIN)/python docs/tables.py

format: $(STAMP)  ## rewrite the source as ruff wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

wheel: $(STAMP)  ## dist/*.whl
	@rm -rf dist
	@$(BIN)/python -m hatchling build -t wheel

# The locks record hashes and no download addresses, and hold for every Python from 3.11 on.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
          --custom-compile-command "make lock"

lock: $(UV)  ## rewrite the locks with the newest versions that pyproject.toml allows
	@$(COMPILE) --upgrade --group dev pyproject.toml -o requirements-dev.lock
	@$(COMPILE) --upgrade --group dev --group referees -c requirements-dev.lock pyproject.toml -o requirements-referees.lock
	@$(COMPILE) --upgrade -c requirements-dev.lock pyproject.toml -o requirements.lock
	@$(COMPILE) --upgrade - <<<uv -o requirements-uv.lock

clean:  ## remove everything that make brought here
	rm -rf .venv .tools dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Some of the referees come as source: where they can be built, the environment has all of them.
LOCK := requirements-$(if $(and $(wildcard /usr/include/PCSC/winscard.h),$(shell command -v swig && command -v gcc)),referees,dev).lock
BUILT := $(addprefix --no-binary ,crcmod pydes pyscard)

# Sync to the lock exactly; then the project itself, its dependencies not resolved again and its build backend the locked one.
$(STAMP): $(LOCK) pyproject.toml | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "optima-bridge needs Python 3.11 or newer, and $(PYTHON) is %d.%d: name another one, make PYTHON=/full/path/python3.12" % sys.version_info[:2])'
	@[ "$$($(BIN)/python -c '$(WHICH)' 2>/dev/null)" = "$(patsubst $(VENV)/.ready-%,%,$@)" ] || \
	  $(UV) venv --quiet --clear --python "$$(command -v $(PYTHON))" $(VENV)
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --only-binary :all: $(BUILT) $(LOCK)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Debian splits venv and pip off into packages of their own: either one will do.
.tools/bin/uv: requirements-uv.lock
	@rm -rf .tools
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	  $(PYTHON) -m venv .tools && .tools/bin/python -m pip install --quiet --only-binary :all: --require-hashes -r $<; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -m pip install --quiet --only-binary :all: --require-hashes -r $< --target .tools; \
	else \
	  echo 'uv cannot be installed: $(PYTHON) has neither venv nor pip. Next: sudo apt install python3-venv' >&2; exit 1; \
	fi
	@touch $@
