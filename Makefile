# Needs make and Python 3.11 or later. Another Python: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
COMPILED := .venv-compiled
# twistd finds twisted/plugins/ in a checkout only if the checkout itself is on the path.
EDITABLE := --config-settings editable_mode=compat --editable

.DEFAULT_GOAL := help
.PHONY: help run test test-compiled check bench profile docs clean

help:
	@echo "make run      two sample services and the gateway in front of them; Ctrl-C ends it"
	@echo "make test     every test                        (ARGS=... goes to pytest)"
	@echo "make test-compiled  the same, against what mypyc makes of a request's way"
	@echo "make check    ruff, mypy, and who imports whom"
	@echo "make bench    CPU per request, beside nginx     (ARGS=... goes to contrib/bench/bench.py)"
	@echo "make profile  where the gateway's time goes     (the same)"
	@echo "make docs     write anew the part of docs/ that is generated"
	@echo "make clean    remove what the others have made"

run: $(VENV)/run.installed
	@$(BIN)/python contrib/run.py

test: $(VENV)/test.installed
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-compiled: $(COMPILED)/installed
	cd / && $(CURDIR)/$(COMPILED)/bin/python -c "import apigw, sys; sys.exit(not apigw.is_compiled() and 'it is not compiled')"
	$(COMPILED)/bin/pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/test.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

bench: $(COMPILED)/installed
	@PATH="$(CURDIR)/$(COMPILED)/bin:$$PATH" $(COMPILED)/bin/python contrib/bench/bench.py $(ARGS)

# Of the plain Python, where a profiler finds its way about.
profile: $(VENV)/bench.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python contrib/bench/bench.py profile $(ARGS)

docs: $(VENV)/run.installed
	$(BIN)/python -m apigw.config.reference > docs/reference/configuration.md.new
	mv docs/reference/configuration.md.new docs/reference/configuration.md

clean:
	rm -rf $(VENV) $(COMPILED) run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c "" 2>/dev/null || { echo "There is no '$(PYTHON)' here. Name a Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "apigw needs Python 3.11 or later, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c "import venv, ensurepip" 2>/dev/null || { echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# As from a wheel: nothing of the checkout is on the path.
$(COMPILED)/installed: setup.py pyproject.toml $(shell find apigw twisted -type f -not -name "*.pyc") | $(BIN)/python
	@echo "Compiling, and installing into $(COMPILED) ..."
	@rm -rf build
	@test -d $(COMPILED) || $(PYTHON) -m venv $(COMPILED) || { rm -rf $(COMPILED); exit 1; }
	@$(COMPILED)/bin/python -m pip --disable-pip-version-check --require-virtualenv install -qq ".[test,bench]"
	@touch $@

$(VENV)/run.installed: setup.py | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(PIP) install -qq $(EDITABLE) .
	@touch $@

$(VENV)/%.installed: setup.py | $(BIN)/python
	@echo "Installing into $(VENV), with what '$*' needs ..."
	@$(PIP) install -qq $(EDITABLE) ".[$*]"
	@touch $@ $(VENV)/run.installed
