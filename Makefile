# Needs make and Python 3.11 or later. Another Python: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
# A file at a time and in their order: the long ones, which start daemons, do not come last.
SPREAD := -n auto --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
COMPILED := .venv-compiled
LOCKED := --no-deps --only-binary :all: --require-hashes
# twistd finds twisted/plugins/ in a checkout only if the checkout itself is on the path.
EDITABLE := --no-deps --no-build-isolation --config-settings editable_mode=compat --editable
EXTRAS := compression json-schema test hunt bench docs lock
UPGRADE ?= --upgrade
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help run test fuzz hunt coverage test-compiled test-bench test-install test-newest test-lowest check bench profile docs dist lock clean

help:
	@echo "make run      two sample services and the gateway in front of them; Ctrl-C ends it"
	@echo "make test     every test                        (ARGS=... goes to pytest)"
	@echo "make test-compiled  the same, against what mypyc makes of a request's way"
	@echo "make test-bench     the tests of contrib/bench"
	@echo "make test-install   what a new user types, in an empty environment; and contrib/systemd, under a real systemd"
	@echo "make fuzz     looks for a minute for bytes that are read wrongly, always the same ones; a finding fails"
	@echo "make hunt     the same with others each time (SECONDS=600), with atheris where that can be installed"
	@echo "make test-newest    every test, with the newest that setup.py allows; test-lowest: with the lowest"
	@echo "make coverage the same, and what no test runs; subprocesses count"
	@echo "make check    ruff, mypy, mypyc, who imports whom, and what is declared and locked"
	@echo "make bench    CPU per request, beside nginx     (ARGS=... goes to contrib/bench/bench.py)"
	@echo "make profile  where the gateway's time goes     (the same)"
	@echo "make docs     write anew the part of docs/ that is generated"
	@echo "make dist     what a release is made of         (PYTHONS='python3.12 ...', else all that are here)"
	@echo "make lock     write requirements/ anew          (UPGRADE=... instead of --upgrade goes to uv)"
	@echo "make clean    remove what the others have made"

run: $(VENV)/run.installed
	@$(BIN)/python contrib/run.py

test: $(VENV)/test.installed
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

# Counted, not timed, so that it does the same everywhere.
fuzz: $(VENV)/test.installed
	$(BIN)/python tests/fuzz/hunt.py --seed 1 --rounds 1 $(ARGS)

# What atheris follows is plain Python. Without it, Hypothesis and changes of the corpus have all of the time.
hunt: SECONDS ?= 600
hunt: $(VENV)/test.installed
	-@$(PIP) install -qq $(LOCKED) --requirement requirements/hunt.txt
	$(BIN)/python tests/fuzz/hunt.py --seconds $(SECONDS) $(ARGS)

# Takes twice the CPU of make test.
coverage: $(VENV)/test.installed
	$(BIN)/python -m pytest $(SPREAD) --cov --cov-report=term $(ARGS)

test-compiled: $(COMPILED)/installed
	cd / && $(CURDIR)/$(COMPILED)/bin/python -c "import apigw, sys; sys.exit(not apigw.is_compiled() and 'it is not compiled')"
	$(COMPILED)/bin/pytest $(SPREAD) $(ARGS)

check: $(VENV)/test.installed $(COMPILED)/installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_dependencies.py
	@cd / && $(CURDIR)/$(COMPILED)/bin/python -c "import apigw, sys; apigw.is_compiled() or print('\n\n*** NOT COMPILED: there is no C compiler here ***\n', file=sys.stderr)"

test-bench: $(VENV)/test.installed $(VENV)/bench.installed
	$(BIN)/python -m pytest $(SPREAD) contrib/bench/tests $(ARGS)

test-install: $(VENV)/test.installed
	$(BIN)/python -m pytest contrib/install $(ARGS)

# Not with the locked versions: these tell what the ranges of setup.py are worth, and never fail.
test-newest: RESOLUTION := highest
test-lowest: RESOLUTION := lowest-direct
test-newest test-lowest: $(VENV)/lock.installed
	@mkdir -p run
	@rm -rf $(VENV)-$@
	@$(PYTHON) -m venv $(VENV)-$@
	-@$(BIN)/uv pip compile --quiet --no-header --no-annotate --resolution $(RESOLUTION) --python $(VENV)-$@/bin/python --extra test setup.py --output-file run/$@.txt --upgrade \
	  && $(VENV)-$@/bin/python -m pip --disable-pip-version-check install -qq $(LOCKED) --requirement requirements/editable.txt \
	  && $(VENV)-$@/bin/python -m pip --disable-pip-version-check install -qq --no-deps -r run/$@.txt \
	  && $(VENV)-$@/bin/python -m pip --disable-pip-version-check install -qq $(EDITABLE) . \
	  && $(VENV)-$@/bin/python -m pytest $(SPREAD) $(ARGS) \
	  || echo "$@: RED, which is no error here. The versions are in run/$@.txt"

# With PYTHONPATH the gateway could be another one, and not compiled.
bench: $(COMPILED)/installed
	@env -u PYTHONPATH PATH="$(CURDIR)/$(COMPILED)/bin:$$PATH" $(COMPILED)/bin/python contrib/bench/bench.py $(ARGS)

# Of the plain Python, where a profiler finds its way about.
profile: $(VENV)/bench.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python contrib/bench/bench.py profile $(ARGS)

# A source distribution, and a compiled wheel for each Python that is here, and this kind of machine.
dist: PYTHONS = $(or $(shell for python in 3.11 3.12 3.13 3.14; do python$$python -c "" 2>/dev/null && echo python$$python; done; true),$(PYTHON))
dist: BUILDER := $(VENV)-dist/bin/python
dist:
	@rm -rf build dist
	@for python in $(PYTHONS); do \
	  echo "Compiling for $$python ..."; \
	  $$python -m venv --clear $(VENV)-dist && $(BUILDER) -m pip --disable-pip-version-check install -qq $(LOCKED) --requirement requirements/build.txt \
	  && APIGW_COMPILE=1 $(BUILDER) -m pip --disable-pip-version-check wheel -q --no-deps --no-build-isolation --wheel-dir dist . || exit 1; \
	done
	@$(BUILDER) -c "from setuptools.build_meta import build_sdist; build_sdist('dist')" >/dev/null
	@ls dist

docs: $(VENV)/run.installed
	$(BIN)/python -m apigw.cli.reference > docs/reference/configuration.md.new
	mv docs/reference/configuration.md.new docs/reference/configuration.md

# All together first, so that what two files name has one version.
lock: $(VENV)/lock.installed
	@mkdir -p run requirements
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" >run/build.in
	@cat requirements/*.txt >run/all.txt
	@$(COMPILE) $(UPGRADE) setup.py run/build.in --all-extras --output-file run/all.txt
	@$(COMPILE) run/build.in --constraint run/all.txt --output-file requirements/build.txt
	@grep setuptools run/build.in | $(COMPILE) - --constraint run/all.txt --output-file requirements/editable.txt
	@$(COMPILE) setup.py --constraint run/all.txt --output-file requirements/run.txt
	@for extra in $(EXTRAS); do $(COMPILE) setup.py --extra $$extra --constraint run/all.txt --output-file requirements/$$extra.txt || exit 1; done
	@git diff --stat requirements

clean:
	rm -rf $(VENV) $(VENV)-* run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c "" 2>/dev/null || { echo "There is no '$(PYTHON)' here. Name a Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "apigw needs Python 3.11 or later, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c "import venv, ensurepip" 2>/dev/null || { echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# As from a wheel: nothing of the checkout is on the path.
$(COMPILED)/installed: setup.py pyproject.toml $(wildcard requirements/*.txt) $(shell find apigw twisted -type f -not -name "*.pyc") | $(BIN)/python
	@echo "Compiling, and installing into $(COMPILED) ..."
	@rm -rf build
	@test -d $(COMPILED) || $(PYTHON) -m venv $(COMPILED) || { rm -rf $(COMPILED); exit 1; }
	@$(COMPILED)/bin/python -m pip --disable-pip-version-check --require-virtualenv install -qq $(LOCKED) -r requirements/build.txt -r requirements/test.txt -r requirements/bench.txt
	@$(COMPILED)/bin/python -m pip --disable-pip-version-check --require-virtualenv install -qq --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# Not compiled by pip, which would compile all: Python does it with what is imported.
$(VENV)/%.installed: setup.py requirements/editable.txt requirements/%.txt | $(BIN)/python
	@echo "Installing into $(VENV), with what '$*' needs ..."
	@$(PIP) install -qq --no-compile $(LOCKED) --requirement requirements/editable.txt --requirement requirements/$*.txt
	@$(PIP) install -qq $(EDITABLE) .
	@touch $@
