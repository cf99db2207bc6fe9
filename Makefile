# Two commands for a fresh machine: `make demo` and `make test`. Both set .venv up first, which happens once.
VENV ?= .venv
BIN := $(VENV)/bin
# One process more than there are cores, because many tests wait; each takes about 1 GB. A file is one process's, so that
# its fixtures are made once. A process that crashes ends the run with its test's name; one in its place could wait for ever.
PROCESSES := $(shell cores=$$(getconf _NPROCESSORS_ONLN); [ $$cores -lt 8 ] && echo $$((cores + 1)) || echo 8)
TESTS := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# Where Python may not keep what it has compiled, each process of the tests compiles all of them anew: 5 s of a processor.
test quick: export PYTHONDONTWRITEBYTECODE :=
export VENV  # the other settings of scripts/setup.sh pass through from the command line or the environment

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick core check format tables docs release-check wheel clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

# Installs timm and the weights of preset photo with pip's --no-deps, so that neither moves torch or numpy.
setup:  ## make .venv ready (scripts/setup.sh explains its settings)
	@sh scripts/setup.sh

demo: setup  ## toy task from nothing to a table, Soft Teacher and ours
	@$(BIN)/cissod-bench demo

test: setup  ## all tests
	@$(BIN)/python -m pytest $(TESTS)

quick: setup  ## the tests that take less than about 5 s each
	@$(BIN)/python -m pytest $(TESTS) -m "not slow"

core:  ## the quick ones of the core, without torch or a compiler: make PYTHON=python3.13 core
	@$(MAKE) --no-print-directory VENV=$(VENV)-core EXTRAS=lvis,dev quick

check: setup  ## lint, format, types, layout rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --durations=0 tests/test_layout.py

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tables: setup  ## fill the pages' tables and plots from the runs kept below results/
	@$(BIN)/python scripts/tables.py

docs: setup  ## the documentation site, in build/site
	@$(BIN)/python -c "import material, mkdocstrings_handlers.python" 2>/dev/null || \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -c $(VENV)/constraints.txt -e ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

release-check: setup  ## build and look at all that a release publishes (TAG=v1.2.3 compares it with the version)
	@$(BIN)/python -c "import twine" 2>/dev/null || \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -c $(VENV)/constraints.txt -e ".[release]"
	@$(BIN)/python scripts/release_check.py $(TAG)

wheel: setup  ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove caches, dist/ and build/, keep .venv and work/
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)*/*' -prune -exec rm -rf {} +
