# make demo | test | test-levels | guard | fuzz | check | bench | conformance | weights | clean: each works on a fresh
# machine that has Python (3.11 or newer) and pip.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-levels guard fuzz check bench conformance weights clean

# Compiles the digit network, runs it on scanned pages, compares and draws: into demo/.
demo: $(VENV)/installed-demo
	$(VENV)/bin/graphc demo

# Two workers: the smallest machine that runs this has two cores, and the thread-pool tests need cores of their own.
test: $(VENV)/installed-test
	$(VENV)/bin/pytest -n 2

# The tests of ops and networks once more with the code for each CPU level, as far as this CPU goes; 15 minutes on
# 2 cores.
LEVELS := x86-64-v4 x86-64-v3 x86-64-v2
LEVEL_TESTS := executors guard_pages arithmetic vecmath gradients kernels network random_graphs models_executors
test-levels: $(VENV)/installed-test
	@for level in $(LEVELS); do \
	    echo "GRAPHC_CPU=$$level"; \
	    GRAPHC_CPU=$$level $(VENV)/bin/pytest -n 2 -q $(LEVEL_TESTS:%=tests/test_%.py) || exit 1; \
	done

# So many drawn problems with forbidden pages around every buffer, on each CPU level that this CPU has; it prints its
# seed, every finding, and how many problems ran each family of kernels; half an hour on one core.
PROBLEMS := 40000
guard: $(VENV)/installed-test
	GRAPHC_CACHE=off PYTHONPATH=tests $(VENV)/bin/python tests/guard.py $(PROBLEMS) $(SEED)

# Random networks and mutated model files for so many minutes; it prints its seed and every finding.
MINUTES := 10
fuzz: $(VENV)/installed-test
	GRAPHC_CACHE=off PYTHONPATH=tests $(VENV)/bin/python tests/fuzz.py $(MINUTES) $(SEED)

check: $(VENV)/installed-check
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy -p graphc
	$(VENV)/bin/python tests/file_lengths.py

# Measures the networks of the README's tables against other runtimes and writes them there; an hour on 2 cores that
# have nothing else to do, and at first some GB of runtimes to fetch.
bench: $(VENV)/installed-bench
	$(VENV)/bin/python tests/performance.py

# Counts which of onnx's own tests pass, for each operator and group; 10 minutes on 2 cores.
conformance: $(VENV)/installed-test
	$(VENV)/bin/python tests/conformance.py

# Trains the networks that come with graphc again, into weights/: the same bits, on a CPU of the same level; half an
# hour on 2 cores. Each command is also in the metadata of its file in models/.
DIGITS := --data pages --epochs 160 --lr 0.002 --warmup 3 --seed 1
DIGIT_MASKS := --data pages --epochs 120 --batch 16 --lr 0.005 --warmup 1 --seed 1
weights: $(VENV)/installed-demo
	mkdir -p weights
	$(VENV)/bin/graphc train digits $(DIGITS) -o weights/digits.safetensors
	$(VENV)/bin/graphc train digit_masks $(DIGIT_MASKS) -o weights/digit_masks.safetensors

# What the other targets leave behind, except the virtual environment, which takes minutes to fetch again.
clean:
	rm -rf build demo dist out weights *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml, so that installing happens once, and again when pyproject.toml changes.
.PRECIOUS: $(VENV)/installed-%
$(VENV)/installed-%: pyproject.toml | $(VENV)/bin/python
	@echo "installing graphc[$*] into $(VENV)"
	@$(PIP) --editable '.[$*]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "graphc wants Python >= 3.11, $(PYTHON) is " + sys.version.split()[0])'
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
