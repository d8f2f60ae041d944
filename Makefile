# Verbs of this repository. Each makes or reuses .venv by itself.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
BUILT  := build/installed

.PHONY: demo test test-browser report-pictures examples faults fuzz bench predictor rtl-soak rtl-coverage rtl-mutations registers lint types wheel clean

demo: $(READY)  ## run the main job on embedded data
	$(BIN)/spikemeter demo --out demo-results

test: $(READY)  ## run all tests
	$(BIN)/pytest

test-browser: $(READY)  ## drive a report in headless Chromium; CHROMIUM=path names another one
	$(BIN)/pytest -m browser tests/browser

report-pictures: $(READY)  ## take the pictures of docs/explaining.md in headless Chromium
	$(BIN)/python tests/browser/pictures.py docs/images

examples: $(READY)  ## run the scripts of examples/, each in under three minutes
	set -e; for script in examples/*.py; do echo "== $$script"; $(BIN)/python $$script; done

faults: $(READY)  ## kill, fill and damage real campaigns; ARGS="--kills 5", ...
	$(BIN)/python tests/calibration/faults.py $(ARGS)

fuzz: $(READY)  ## read damaged and hostile predictor folders; ARGS="--cases 20000", "--seed 7", ...
	PYTHONPATH=tests/support $(BIN)/python tests/support/try_folders.py predictor/default $(ARGS)

bench: $(READY)  ## one of benchmarks/*.py: make bench NAME=timing ARGS="--published"
	PYTHONPATH=tests/support $(BIN)/python benchmarks/$(NAME).py $(ARGS)

predictor: $(READY)  ## fit the predictor that ships to the tables of its campaigns
	$(BIN)/spikemeter fit calibration/default calibration/longer --out predictor/default

rtl-soak: $(READY)  ## many random networks in RTL; ARGS="--networks 400", "--seed 17", ...
	$(BIN)/python tests/rtl/soak.py $(ARGS)

rtl-coverage: $(READY)  ## lines and bits of the RTL that random networks exercise
	$(BIN)/python tests/rtl/coverage.py $(ARGS)

rtl-mutations: $(READY)  ## break the RTL on purpose, and see that the checks notice
	$(BIN)/python tests/rtl/mutations.py $(ARGS)

registers: $(READY)  ## RTL, C header, Python map and table of docs from rtl/registers.rdl
	$(BIN)/python -m spikemeter.rtl.write_registers

lint: $(READY) wheel  ## ruff, import arrows, Verilator lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(BUILT) && ../../$(BIN)/lint-imports --no-cache --config ../../pyproject.toml
	$(BIN)/python -m spikemeter.rtl.lint

types: $(READY) wheel  ## mypy --strict on the built package
	MYPYPATH=$(BUILT) $(BIN)/mypy

wheel: $(READY)  ## build the wheel, and unpack it for the static checkers
	rm -rf build/bdist.* build/lib $(BUILT) dist
	$(BIN)/python -m build --wheel --outdir dist > /dev/null
	$(BIN)/pip install --quiet --no-deps --target $(BUILT) dist/*.whl

clean:  ## remove everything that was made here
	rm -rf .venv build dist *.egg-info demo-results

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet pip==26.3
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev --editable .[all]
	touch $@
