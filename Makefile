# make            install, fetch, train, draw: everything of CONFIG (config.yaml), ends in its index.html
# make test       the test suite
# make test-slurm grids through sbatch, on a Slurm of this machine alone (as root; installs Debian's)
# make test-kubernetes   a small grid through Kubernetes' API without a shared disk (needs rsync)
# make test-all   lint, smoke and all tests
# make lint       ruff, import-linter, mypy, snakefmt, snakemake --lint
# make smoke      the whole graph on a few hundred documents, and a look at its page
# make report     Snakemake's report.html beside the page: how each result was made, and how long it took
# make unlock     after a kill: remove the locks that Snakemake left; then the same command goes on
# make docs       the documentation site, into build/site
# make reference  workflow/schemas: the configuration's JSON schema and reference page
# make clean      forget results, logs and caches; data/ and .venv stay
#
# pip is used as it is set up (PIP_* variables, pip.conf). Python 3.11 to 3.13: make PYTHON=python3.12

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
CONFIG ?= config.yaml
CORES ?= all
REQUIREMENTS ?= envs/cpu.txt

BIN := .venv/bin
INSTALLED := .venv/.installed
SMOKE := workflow/configs/smoke.yaml
SNAKEMAKE := $(BIN)/snakemake --cores "$$CORES"
SNAKEFILES := Snakefile workflow

# pytest and haste find themselves; what they start should find the same
export PATH := $(CURDIR)/$(BIN):$(PATH)
# names reach the shell as variables, so that it takes nothing in them for a command
export CONFIG CORES REQUIREMENTS

define RESULTS
import sys
from haste.errors import HasteError
from haste.grid import read_grid
try:
    print(read_grid(sys.argv[1:]).layout.results)
except HasteError as error:
    sys.exit(f"make: {error}")
endef
export RESULTS

.PHONY: all install test test-slurm test-kubernetes test-all lint smoke report unlock reference docs clean

all: install
	$(SNAKEMAKE) --configfile "$$CONFIG"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(wildcard envs/*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "make: $(PYTHON) is not Python 3.11 to 3.13; name one: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r "$$REQUIREMENTS"
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

test: install
	$(BIN)/pytest -n auto --dist worksteal

test-slurm: install
	$(SNAKEMAKE) --configfile $(SMOKE)
	timeout --kill-after=60 4800 tests/slurm/cluster.sh $(BIN)/pytest -x -s tests/slurm

test-kubernetes: install
	$(BIN)/python -m pip install -r envs/kubernetes.txt
	$(BIN)/pytest tests/kubernetes

test-all: lint smoke test test-slurm test-kubernetes

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/snakefmt --check $(SNAKEFILES)
	$(BIN)/snakemake --lint

smoke: install
	$(SNAKEMAKE) --configfile $(SMOKE)
	$(BIN)/pytest tests/workflow/test_workflow_smoke.py

report: install
	results=$$($(BIN)/python -c "$$RESULTS" "$$CONFIG") \
	  && $(SNAKEMAKE) --configfile "$$CONFIG" --report="$$results/report.html"

unlock: install
	$(SNAKEMAKE) --configfile "$$CONFIG" --unlock

reference: install
	$(BIN)/python -m haste.config_reference workflow/schemas

docs: install
	$(BIN)/python -m pip install -q -r envs/docs.txt
	cp workflow/schemas/configuration.md docs/configuration.md
	$(BIN)/python -m typer haste.cli utils docs --name haste --output docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf results/mini/runs results/mini/figures results/mini/index.html results/mini/grid.yaml
	rm -rf results/smoke results/paper-scaled logs .snakemake build .pytest_cache .ruff_cache .mypy_cache .hypothesis
