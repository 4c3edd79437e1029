# Everything runs in .venv, which the first target that needs it makes.
# Another Python: `make test PYTHON=/path/to/python`. More arguments: `make test ARGS="-k bridge"`.

CONSTRAINTS := constraints.txt
RUN := .venv/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

# The first of these that starts, is recent enough and can make environments.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	>/dev/null 2>&1 && echo $$name && break; done)

.PHONY: help demo test lint types docs tutorials results check build pins clean

help:
	@echo "make demo   train on a real screen, predict held-out perturbations, print the scores (minutes on 2 cores)"
	@echo "make test   run the tests"
	@echo "make lint   ruff: rules and format"
	@echo "make types  mypy"
	@echo "make docs   build the site in docs/_build/html; warnings and links that lead nowhere are errors"
	@echo "make tutorials  execute the notebooks anew, with what they show (15 minutes on 2 cores)"
	@echo "make results  score every table with this model and write its pages (hours; DRAW=1: pages only, SHORT=1: minutes)"
	@echo "make check  all of the above but the demo"
	@echo "make build  wheel and source distribution in dist/"
	@echo "make pins   resolve constraints.txt anew"
	@echo "make clean  remove .venv and what was built"

demo: .venv/runtime
	.venv/bin/unlasting demo --force $(ARGS)

test: .venv/dev
	$(RUN) pytest --numprocesses auto --dist loadfile $(ARGS)

lint: .venv/dev
	$(RUN) ruff check
	$(RUN) ruff format --check

types: .venv/dev
	$(RUN) mypy

docs: .venv/doc
	$(RUN) sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)
	.venv/bin/python docs/check_links.py docs/_build/html

check: test lint types docs

# What tqdm says where no widgets are installed does not belong into a notebook. Log lines are as wide as the site's column.
tutorials: .venv/doc
	JUPYTER_COLUMNS=84 PYTHONWARNINGS="ignore:IProgress not found" $(RUN) jupyter execute --inplace tutorials/*.ipynb

build: .venv/dev
	$(INSTALL) build
	$(RUN) build

# DATA=FOLDER has further screens; DRAW=1 writes the pages from stored scores; SHORT=1 repeats five rows and compares them.
results: .venv/runtime
	.venv/bin/python benchmarks/quality/results.py $(if $(DATA),--data $(DATA)) $(if $(DRAW),--draw) $(if $(SHORT),--short)

# One resolution for every supported Python and platform, told apart by environment markers.
pins: .venv/runtime
	$(INSTALL) uv
	$(RUN) uv pip compile --quiet --upgrade --universal --python-version 3.11 --group dev --group doc \
		--no-annotate --no-header --output-file $(CONSTRAINTS) pyproject.toml

clean:
	rm -rf .venv dist docs/_build docs/generated .mypy_cache .pytest_cache .ruff_cache

# An empty file for each set of packages: what is installed is installed again only when its list or the pins change.
.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 (with venv) was found. Name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime: pyproject.toml $(CONSTRAINTS) | .venv/bin/python
	@echo "Installing unlasting and what it needs into .venv (a few minutes the first time)."
	$(INSTALL) "pip>=25.1"  # the first that knows dependency groups
	$(INSTALL) --editable .
	@touch $@

.venv/dev .venv/doc: .venv/%: .venv/runtime
	$(INSTALL) --group $*
	@touch $@
