# The two commands of a fresh machine: `make demo` and `make test`. Each makes its own environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# What `make demo` runs on: `digits`, or a folder, .zip or .tar of images.
DATA ?= digits
# Further options of `spherequant train` for the demo, such as --backbone NAME --weights FILE.
TRAIN ?=

# Nothing here is made by the rules that make knows itself.
MAKEFLAGS += --no-builtin-rules

.PHONY: demo test check bench results docs clean

# Versions of development are pinned in constraints.txt; users get the open ranges of pyproject.toml.
$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard native/*.* native/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python benchmarks/demo.py "$(DATA)" --python $(BIN)/python -- $(TRAIN)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Times of the encoder and of searches.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/spherequant bench

# The scripts of benchmarks/ that have reduced settings, about half an hour on two cores; FULL=1: all of
# them in full, days on two cores. What has ended is not run again; AGAIN=1 does.
results: $(VENV)/.installed
	$(BIN)/python benchmarks/run_all.py $(if $(FULL),--full) $(if $(AGAIN),--again)

# docs/results.md, from the figures that the scripts recorded in docs/results/.
docs: $(VENV)/.installed
	$(BIN)/python benchmarks/results.py

clean:
	rm -rf $(VENV) build demo results
