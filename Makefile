# `make demo` and `make test` set up .venv in this folder when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo sweeps bench test lint types package check fix clean

demo: .venv/.ok
	$(BIN)/holdfast demo

# The tables of docs/sweeps.md; about an hour on two cores.
sweeps: .venv/.ok
	HOLDFAST=$(BIN)/holdfast OMP_NUM_THREADS=1 benchmarks/lab_sweeps.sh

# docs/benchmarks.md; under a quarter of an hour on two cores.
bench: .venv/.ok
	$(BIN)/python benchmarks/bench.py

test: .venv/.ok
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: .venv/.ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ok
	$(BIN)/mypy

package: .venv/.ok
	$(BIN)/python -m build --no-isolation --outdir dist .

check: lint types test package

fix: .venv/.ok
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The constraint holds torch at one version; without it pip takes gigabytes of CUDA packages.
.venv/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq -c constraints.txt -e '.[trl,dev]'
	touch .venv/.ok

clean:
	rm -rf .venv dist build
