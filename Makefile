# Two commands: `make demo` installs onnxprune and runs the main job on what the repository ships;
# `make test` installs what the tests need and runs them all.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN = runs/lenet5
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-fast lint docs install install-dev

demo: install
	rm -rf $(RUN)
	mkdir -p $(dir $(RUN))
	$(BIN)/onnxprune compress models/lenet5.onnx --data models/lenet5-data.npz -o $(RUN)

test: install-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: install-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/lint-imports

docs: install-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
