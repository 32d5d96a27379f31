# make train: a model and its samples in runs/flow-digits.  make test: the suite.
PYTHON ?= python3
RUNS ?= runs
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c requirements.lock

.PHONY: setup setup-test setup-docs train test results docs test-peers lint clean

setup: $(VENV)/.installed
setup-test: $(VENV)/.installed-test

# A stamp is written only when its installation is whole: interrupt and run again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is too old: gengen needs Python 3.11 or later (make PYTHON=python3.12)"; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); test "$$(id -u)" = 0 && \
	  apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); } || \
	  { echo "make: $(PYTHON) cannot make an environment: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/.made
	$(LOCKED) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml requirements.lock | $(VENV)/.made
	$(LOCKED) -e '.[test]'
	@touch $(VENV)/.installed $@

setup-docs: $(VENV)/.installed-docs
$(VENV)/.installed-docs: pyproject.toml requirements.lock | $(VENV)/.made
	$(LOCKED) -e '.[test,docs]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $@

train: setup
	$(BIN)/python -m train flow --workdir $(RUNS)/flow-digits

test: setup-test
	$(BIN)/python -m pytest

results: setup-test
	$(BIN)/python -m tests.pages

# Gigabytes of torch, in an environment of its own: modules of other libraries, drawn
# anew, and their weights and outputs beside ours.
test-peers: setup-test
	test -d .venv-peers || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet torch transformers diffusers
	.venv-peers/bin/python tests/fixtures/peers.py build/peers $$(date +%s)
	PEERS=build/peers $(BIN)/python -m pytest -n 0 tests/test_interchange.py tests/test_foreign.py

# The site, a static folder: pages, notebooks (run, at toy size), all modules.
SITE ?= build/site
docs: setup-docs
	$(BIN)/python -m sphinx -W --keep-going -q -c docs . $(SITE)
	@echo "the site: $(SITE)/index.html"

# Minutes, and PyPI: a wheel in an empty environment, used outside the checkout.
wheel-test:
	PYTHON=$(PYTHON) .ci/wheel.sh

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .venv-peers build dist *.egg-info
