# Two commands do everything: `make book` and `make test`.  `make help` lists the others.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
HTML   := _build/html/index.html
# One process per core, one thread in each: more only get in each other's way.
PYTEST := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

# The embedded digits unless told otherwise: nothing here tries a download.
export PROSPER_DATASET ?= digits

.DEFAULT_GOAL := help
.PHONY: help venv book test unit nbval checker lint linkcheck links notebooks results front pictures works bench mutants sample shuffled pins clean

help:  ## list every target
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

venv: $(READY)  ## create the environment in .venv and install everything

book: $(READY)  ## execute every chapter, build the pages, print the path of index.html
	@rm -rf _build/html/.doctrees _build/.doctrees
	$(BIN)/jupyter-book build . --builder html -W -n --keep-going -q
	@echo "The book: $(CURDIR)/$(HTML)"

test: $(READY) lint  ## everything that must hold
	$(PYTEST)

unit: $(READY)  ## only the tests of the package, the pages and the files
	$(PYTEST) tests

nbval: $(READY)  ## only the chapters: execute each, compare its checked outputs with the stored ones
	$(PYTEST) notebooks tests/conftest.py  # named, since only then it is loaded

checker:  ## install what checks the exported proofs; without it some tests are skipped (Debian, Ubuntu)
	@command -v metamath > /dev/null || { $(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -y -qq metamath > /dev/null; }

linkcheck: $(READY)  ## check the links within the built book; needs no network
	@$(BIN)/python book/tools/linkcheck.py $(dir $(HTML))

links: $(READY)  ## check the links to other places; needs the network
	@mkdir -p _build
	@sed 's/execute_notebooks: .*/execute_notebooks: "off"/' _config.yml > _build/links.yml
	$(BIN)/jupyter-book build . --builder linkcheck --config _build/links.yml -q

notebooks: $(READY)  ## sync the pairs of notebooks and execute them in place
	$(BIN)/python book/tools/chapters.py

pictures: $(READY)  ## make the drawings, and the still pictures of interactive figures (with Chromium)
	$(BIN)/python book/tools/drawings.py
	$(BIN)/python book/tools/pictures.py

results: $(READY)  ## recompute the stored sweeps; it goes on where it stopped
	$(BIN)/python book/studies/sweep_streaming.py
	$(BIN)/python book/studies/sweep_mnist.py
	$(BIN)/python book/studies/sweep_proofs.py
	$(BIN)/python book/studies/prove_with_e.py
	$(BIN)/python book/studies/sweep_domains.py
	$(BIN)/python book/studies/sweep_regrowth.py
	$(BIN)/python book/studies/sweep_units.py
	if [ -n "$$PROSPER_CIFAR10" ]; then for sweep in colour precision; do \
		$(BIN)/python book/studies/sweep_$$sweep.py || exit 1; done; fi
	if [ -n "$$PROSPER_FASHION_MNIST" ]; then for sweep in mnist regrowth; do \
		PROSPER_DATASET=fashion_mnist $(BIN)/python book/studies/sweep_$$sweep.py || exit 1; done; fi
	$(BIN)/python book/tools/front.py
	$(BIN)/python book/tools/methods.py

front: $(READY)  ## make what the front page and "Which method, when" take from the stored results
	$(BIN)/python book/tools/front.py
	$(BIN)/python book/tools/methods.py

works: $(READY)  ## try every layer, loss, optimizer and way of saving of the page "What works"
	$(BIN)/python book/tools/works.py

bench: $(READY)  ## measure time and memory (meta-gradients also in PyTorch if it is installed)
	$(BIN)/python book/studies/bench.py
	$(BIN)/python book/studies/bench_authors.py
	$(BIN)/python book/studies/bench_regrowth.py
	$(BIN)/python book/studies/bench_units.py
	$(BIN)/python book/studies/bench_proofs.py

mutants: $(READY)  ## plant small faults and count those that the tests catch; it goes on where it stopped
	$(BIN)/pip install --quiet --no-build-isolation -e ".[mutants]"
	$(BIN)/python book/tools/mutants.py

sample: $(READY)  ## judge a few such faults, drawn anew each week; it fails if the score has fallen
	$(BIN)/pip install --quiet --no-build-isolation -e ".[mutants]"
	$(BIN)/python book/tools/mutants.py --sample 100 --minutes 90

shuffled: $(READY)  ## the unit tests in one process, in an order drawn anew each week
	$(BIN)/pip install --quiet --no-build-isolation -e ".[order]"
	$(BIN)/pytest tests -p no:xdist --random-order-bucket=module --random-order-seed=$${SEED:-$$(date +%G%V)}

lint: $(READY)  ## check style and formatting of the code, and that the files of each chapter agree
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/python book/tools/chapters.py --check

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
