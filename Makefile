# edgegen: `make demo` and `make test` need nothing but Python 3.11 or newer; everything goes into .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A process takes up to 1 GB; tests/conftest.py says what goes together.
PARALLEL := -n auto --maxprocesses 4 --dist loadscope
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-long test-devices test-apps test-swift test-slow lint docs install install-test cuda-wheels clean

demo: install  ## images -> six phone files -> report, in minutes
	$(BIN)/edgegen run examples/digits.toml

test: install-test lint docs  ## lint, types, import contracts, the manual, quick tests
	$(BIN)/python -m pytest -m "not long and not slow and not devices and not apps" $(PARALLEL)

test-long: install-test  ## tests of 8 seconds and more: every cell of scheme and runtime, brought teachers, damaged runs
	$(BIN)/python -m pytest -m "long and not slow and not devices and not apps" $(PARALLEL)

test-devices: install-test  ## a phone's daemon, an emulated ARM64, a browser: what apt, pip and npm give, and why the rest is not run
	$(BIN)/python tests/device_parts.py
	$(BIN)/python -m pytest -m devices

test-apps: install-test  ## the sources of apps: TypeScript in node and a browser, Kotlin on the JVM, the web page; Swift where test-swift fetched it
	$(BIN)/python tests/app_parts.py
	$(BIN)/python -m pytest tests/apps -m apps $(PARALLEL)

test-swift: install-test  ## the same with Swift, which Debian has: 600 MB to download, 2.5 GB in edgegen's cache
	$(BIN)/python tests/app_parts.py swift
	$(BIN)/python -m pytest tests/apps -m apps -k swift

test-slow: install-test  ## the whole demo; a run killed in every stage; several processes; sizes of every family; optimum-onnx
	$(BIN)/python -m pytest -m slow

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: install-test  ## the manual as a site in site/; a broken link or an undocumented page is an error; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

install: $(VENV)/installed
install-test: $(VENV)/installed-test

# torch first and alone: a CPU build already at hand is taken, and on a CUDA machine the same line gives CUDA.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0
	$(PIP) install --editable '.[all]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --editable '.[all,qnn,test,docs]'
	touch $@

# A CUDA machine without a network brings torch 2.11 to 2.13 and the rest of the dependencies; these it may lack.
cuda-wheels:  ## wheels for training on such a machine: pip install --no-index --find-links cuda-wheels pydantic pillow segno pyyaml psutil
	$(PYTHON) -m pip --disable-pip-version-check --quiet download --only-binary :all: --dest cuda-wheels \
	  --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
	  pydantic pillow segno pyyaml psutil

clean:
	rm -rf $(VENV) build dist site cuda-wheels .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
