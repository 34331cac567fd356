# Two commands do everything: `make book` and `make test`.  `make help` lists the others.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
HTML   := _build/html/index.html

# The embedded digits unless told otherwise: nothing here tries a download.
export PROSPER_DATASET ?= digits

.DEFAULT_GOAL := help
.PHONY: help venv book test notebooks pictures results bench lint pins clean

help:  ## list every target
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

venv: $(READY)  ## create the environment in .venv and install everything

book: $(READY)  ## execute every chapter, build the pages, print the path of index.html
	@rm -rf _build/html/.doctrees _build/.doctrees
	$(BIN)/jupyter-book build . --builder html -W -n --keep-going -q
	@echo "The book: $(CURDIR)/$(HTML)"

test: $(READY) lint  ## everything that must hold
	$(BIN)/pytest

notebooks: $(READY)  ## sync the pairs of notebooks and execute them in place
	$(BIN)/python book/chapters.py

pictures: $(READY)  ## draw the still pictures of the interactive figures again (with Chromium)
	$(BIN)/python book/pictures.py

results: $(READY)  ## recompute the stored sweeps; it goes on where it stopped
	$(BIN)/python book/sweep_streaming.py
	$(BIN)/python book/sweep_mnist.py
	$(BIN)/python book/sweep_proofs.py
	$(BIN)/python book/sweep_regrowth.py

bench: $(READY)  ## measure time and memory of the meta-gradients (with PyTorch if it is installed)
	$(BIN)/python book/bench.py

lint: $(READY)  ## check style and formatting of the code
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

pins: $(READY)  ## resolve pyproject.toml again into the exact pins of requirements.txt
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-annotate \
		--custom-compile-command "make pins" --extra book pyproject.toml -o requirements.txt

clean:  ## remove what was built, and the environment
	rm -rf _build $(VENV) prosper_utils.egg-info

$(READY): requirements.txt pyproject.toml Makefile
	@command -v $(PYTHON) > /dev/null || { echo "The book needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' was not found. If you have one by another name, run: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "The book needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1). If you have one by another name, run: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "The book needs Python's venv module, and '$(PYTHON)' came without it. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV); this takes some minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
