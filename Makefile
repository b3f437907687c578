# make run    install and start the service with the built-in model
# make test   install what tests need and run every check
# make train  train the built-in model anew (training/README.md); hours on two CPU cores, minutes on a GPU
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint test-slow bench train clean

run: $(VENV)/.installed
	$(BIN)/sfumato serve

test: lint
	$(BIN)/pytest -m "not slow and not gpu"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m "slow"

train: $(VENV)/.installed-train
	$(BIN)/python -m training.data
	$(BIN)/python -m training.autoencoder
	$(BIN)/python -m training.denoiser
	$(BIN)/python -m training.export
	$(BIN)/python -m training.judge
	$(BIN)/python -m training.evaluate

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.service

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sfumato needs Python 3.11 or newer; say which with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-train: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,train]'
	@touch $@

clean:
	rm -rf $(VENV) build dist
