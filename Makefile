# Everything sets itself up: a machine with Python 3.11 or newer is enough. `make` alone says what there is.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Installing again is needed only when one of these changed.
STAMP := $(VENV)/.installed

# Demo and tests start many processes: let the first one keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo run test check lint types imports bench clean

help:
	@echo 'make demo    push real logs, query them, verify, tamper, verify again (10 s)'
	@echo 'make run     serve on 127.0.0.1:8420 with the archive in var/'
	@echo 'make test    run the tests'
	@echo 'make check   what CI runs: lint, types, import direction, tests'
	@echo 'make bench   measure, and print one table'
	@echo 'make clean   remove the virtual environment and caches (never var/)'

$(STAMP): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV) …'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python demo/demo.py

run: $(STAMP)
	@$(BIN)/strongroom serve

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

check: lint types imports test

bench: $(STAMP)
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
