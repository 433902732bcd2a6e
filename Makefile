# nmt: `make demo` to see it work, `make test` to see it tested.
#
# A fresh machine needs Python 3.11 or newer, make and git. Everything is installed into .venv.
#   PYTHON=python3.12             another interpreter to make .venv with
#   PIP_ARGS="…"                  more options for pip. On Linux the default build of torch brings CUDA along
#                                 (gigabytes); without a GPU, name here the index of CPU-only builds that
#                                 PyTorch's web site gives.
#   JOBS=2                        how many processes run the tests

PYTHON   ?= python3
PIP_ARGS ?=
JOBS     ?= 2

BIN     := .venv/bin
NMT     := $(BIN)/nmt
RECIPE  := recipes/quickstart.yaml
EXAMPLE := Click the button to save the document.
PIP     := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.PHONY: help install demo test lint clean

help:
	@echo "make demo     prepare, train, average, score and translate on the sample in data/ (minutes)"
	@echo "make test     install what the tests need and run them all"
	@echo "make lint     ruff and mypy"
	@echo "make install  only make .venv, with nmt in it"
	@echo "make clean    remove .venv and caches (runs/ stays)"

install: .venv/installed

demo: install
	$(NMT) prepare $(RECIPE)
	$(NMT) train $(RECIPE)
	$(NMT) average $(RECIPE)
	$(NMT) score $(RECIPE) --show 5
	$(NMT) report $(RECIPE)
	echo "$(EXAMPLE)" | $(NMT) translate $(RECIPE)
	@echo
	@echo "That was the whole road. To translate your own text, type"
	@echo "    echo \"$(EXAMPLE)\" | $(NMT) translate $(RECIPE)"
	@echo "or, for a file,"
	@echo "    $(NMT) translate $(RECIPE) < your.txt > translated.txt"

test: .venv/installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nmt tests data recipes -name __pycache__ -prune -exec rm -rf {} +

# The stamps say that .venv holds what these two files ask for; pip runs again only when one of them changes.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@touch $@

.venv/installed-test: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[test]'
	@touch $@ .venv/installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"nmt needs Python 3.11 or newer, this is {sys.version.split()[0]}; name another with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
