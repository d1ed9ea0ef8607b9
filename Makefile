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
.PHONY: help demo run test test-s3 test-ceph fuzz check lint types imports bench clean

help:
	@echo 'make demo    push real logs, query them, verify, tamper, verify again (10 s); ARCHIVE=s3: in a bucket'
	@echo 'make run     serve on 127.0.0.1:8420 with the archive in var/'
	@echo 'make test    run the tests'
	@echo 'make test-s3    run the suites of store, ingest, query, verify with their archives in buckets (moto; long)'
	@echo 'make test-ceph  run the store and its refusals against Ceph (installs it from Debian, as root)'
	@echo 'make fuzz TARGET=cloudtrail SECONDS=600   fuzz a splitter or decoder (TARGET=all: each in turn)'
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
	@$(BIN)/python demo/demo.py $(ARCHIVE)

run: $(STAMP)
	@$(BIN)/strongroom serve

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile

# Tests that play with the archive's files skip themselves here.
test-s3: $(STAMP)
	STRONGROOM_TEST_STORE=s3 $(BIN)/python -m pytest -n auto tests/archive tests/ingest tests/query tests/service tests/s3

CEPH := /tmp/strongroom-ceph
test-ceph: $(STAMP)
	tests/s3/ceph.sh start $(CEPH)
	. $(CEPH)/environment && $(BIN)/python -m pytest tests/archive/test_stores.py tests/archive/test_s3.py tests/s3; \
	    code=$$?; tests/s3/ceph.sh stop $(CEPH); exit $$code

TARGET ?= all
SECONDS ?= 60
fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz $(TARGET) $(SECONDS)

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
