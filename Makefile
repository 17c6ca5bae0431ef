# `make demo` runs the whole study on embedded data; `make test` runs lint and all tests but the slow ones;
# `make docs` builds the site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One compute thread per test process: two processes on two cores are faster than two threads fighting twice.
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test coverage lint slow mutants docs dist clean

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
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
	$(PYTEST)

# The tests of `make test`; fails where they run less of the three packages than pyproject.toml demands, and names the
# lines that none runs. Half as long again, so a job of its own.
coverage: lint
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

# Hours: changes N lines of the packages one at a time and runs tests until one notices. SEED draws other lines; the same
# command goes on after an interruption, and AGAIN=1 tries what survived once more.
SEED ?= 1
N ?= 100
mutants: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,mutants]'
	$(BIN)/python tests/mutants.py --seed $(SEED) -n $(N) $(if $(AGAIN),--again)

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/site
	@echo out/site/index.html

# The sdist, with tests that can be collected; from it the wheel, which runs from another folder. Beside the wheel that
# folder's Python sees the packages of $(VENV) but not its editable install: paths in a .pth read no .pth of their own.
dist: $(VENV)/.installed
	rm -rf build dist
	$(BIN)/python -m build
	mkdir build && tar -xzf dist/*.tar.gz -C build
	cd build/neuralfuse_sim-* && $(abspath $(BIN))/python -m pytest --collect-only -qq >/dev/null
	$(BIN)/python -m venv build/venv
	ls -d $(abspath $(VENV))/lib/python3*/site-packages >"$$(ls -d build/venv/lib/python3*/site-packages)/dependencies.pth"
	build/venv/bin/python -m pip install -q --no-deps dist/*.whl
	cd build && venv/bin/neuralfuse --help >/dev/null
	cd build && venv/bin/neuralfuse simulate --network resnet18 --input 3x32x32 --accelerator paper --out layers.csv >/dev/null

clean:
	rm -rf $(VENV) out build dist *.egg-info
