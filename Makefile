# `make demo` runs the whole study on embedded data; `make test` runs lint and all tests but the slow ones;
# `make docs` builds the site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One compute thread per test process: two processes on two cores are faster than two threads fighting twice.
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2

.PHONY: demo test lint slow docs clean

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/neuralfuse demo --out out/demo

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/site
	@echo out/site/index.html

clean:
	rm -rf $(VENV) out build *.egg-info
