# Everything starts from python3, make and apt; what else is needed goes to .venv and .tox.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
TOX := $(VENV)/bin/tox run
# Two environments at a time. The name of each is shown when it has ended, and its output if it has failed.
SIDE_BY_SIDE := $(VENV)/bin/tox run-parallel --parallel 2 --parallel-no-spinner

# The whole suite runs on Python 3.11 or, where there is none, on the Python of .venv.
FULL_SUITE = $(shell python3.11 -c '' 2>/dev/null && echo py311 || \
	$(VENV)/bin/python -c 'from sys import version_info as v; print("py311" if v < (3, 12) else f"py3{v.minor}-full")')

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo check test full servers fmt house lint lock bench docs clean system

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.lockkit ## watch real processes compete for one lock; under a minute, nothing else needed
	@$(VENV)/bin/lockkit demo
	@if command -v redis-server >/dev/null || command -v valkey-server >/dev/null; then \
		echo; echo "Second act: the same on a private Redis server."; \
		$(VENV)/bin/python -c 'import redis' 2>/dev/null || $(VENV)/bin/python -m pip install \
			--quiet --disable-pip-version-check --editable '.[redis]'; \
		$(VENV)/bin/lockkit demo --on redis; \
	fi

check: $(VENV)/.tox ## style, types and the tests that need no server; about two minutes on two cores
	@$(TOX) -q -e check

test: $(VENV)/.tox ## style, types, tests on every store, docs, packaging; a quarter of an hour on two cores
	@.ci/system servers shells
	@verdict=FAILED; FULL_SUITE=$(FULL_SUITE) $(SIDE_BY_SIDE) --result-json .tox/test.json && verdict=passed; \
		.ci/report .tox/test.json; echo "make test: $$verdict"; [ $$verdict = passed ]

full: $(VENV)/.tox ## what else a change must pass: the tests that take long, the dashboard in a browser, Celery and other workers, a second Python; installs Chromium; half an hour
	@.ci/system servers chromium
	@verdict=FAILED; $(SIDE_BY_SIDE) -m full --result-json .tox/full.json && verdict=passed; \
		.ci/report .tox/full.json; echo "make full: $$verdict"; [ $$verdict = passed ]

servers: ## install what is missing of the servers that tests start, and Chromium; starts no service
	@.ci/system servers chromium

fmt: $(VENV)/.tox ## format the code and mend what a tool can mend
	@$(TOX) -q -e fmt

lint: $(VENV)/.tox ## check style, floors, spelling and types
	@$(TOX) -e lint,type

house: ## how large the house is: entries, lines of each part, longest function and file, circles
	@$(PYTHON) .ci/house

lock: $(VENV)/.tox ## renew the versions that tests and tools run on, in tests/locked; ARGS="--upgrade-package redis" for some
	@$(VENV)/bin/python .ci/lock $(ARGS)

bench: $(VENV)/.tox ## measure lockkit beside other projects' locks; ARGS="--quick redis" for a part of it
	@$(TOX) -e bench -- $(ARGS)

docs: $(VENV)/.tox ## build the documentation and run its examples
	@$(TOX) -e docs
	@echo "Open docs/_build/html/index.html"

clean: ## remove everything that the targets above have made
	@rm -rf $(VENV) .tox build dist docs/_build .coverage .coverage.* htmlcov \
		.pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find lockkit backends tests docs -name __pycache__ -prune -exec rm -rf {} +

# What pip cannot install: a Python with venv.
system:
	@PYTHON=$(PYTHON) .ci/system python

# A stamp marks each step of .venv as done; a second run of `demo` starts at once.
$(VENV)/.python: | system
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.lockkit: pyproject.toml $(VENV)/.python
	@echo "Installing lockkit into $(VENV)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# All environments are recreated when locked versions change, because tox does not notice that.
$(VENV)/.tox: $(wildcard tests/locked/*.txt) $(VENV)/.python
	@echo "Installing tox into $(VENV)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/locked/tox.txt
	@rm -rf .tox
	@touch $@
