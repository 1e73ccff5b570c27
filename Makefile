# Everything from a fresh machine: Python >= 3.11 and make. `make PYTHON=python3.12 test` uses another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-storage lint chaos fuzz bench clean

demo: $(INSTALLED)
	$(BIN)/python pipelines/train_digits.py --probe demo/digits --out demo/snapshots
	$(BIN)/dissect-xr run pipelines/digits.yaml --out demo/run

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Storage, probe, dissection and scores need no torch: their tests run on another Python, which gets another zarr.
NO_TORCH := tests/test_storage.py tests/test_probe.py tests/test_dissect.py tests/test_score.py tests/test_netdissect_csv.py \
	tests/test_digits.py tests/test_colors.py tests/test_plot.py \
	tests/test_concurrency.py tests/test_lock.py tests/test_snapshots.py tests/test_accessor.py tests/test_exemplars.py \
	tests/test_plot_units.py tests/test_progress.py
test-storage: .venv-storage/installed
	.venv-storage/bin/python -m pytest $(PYTEST) $(NO_TORCH)

.venv-storage/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-storage
	.venv-storage/bin/python -m pip install --quiet -c constraints.txt \
		$$(.venv-storage/bin/python pipelines/requirements.py --without torch)
	.venv-storage/bin/python -m pip install --quiet --no-deps -e .
	touch $@

# torch first and by itself: it is pinned, and a build that is installed already satisfies the rest.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Rounds of killing processes of a run, and cases of broken inputs; the tests run 8 + 3 rounds and 1,000 cases of them.
chaos: $(INSTALLED)
	CHAOS_ROUNDS=30 CHAOS_S3_ROUNDS=5 $(BIN)/python -m pytest -s tests/chaos

fuzz: $(INSTALLED)
	FUZZ_CASES=10000 $(BIN)/python -m pytest tests/fuzz

# Stores of up to 15 GB and twenty minutes; BENCH=--short takes 0.5 GB and one.
bench: $(INSTALLED)
	$(BIN)/python pipelines/benchmark.py --folder bench $(if $(BENCH),$(BENCH),--record pipelines/benchmarks.md)

clean:
	rm -rf $(VENV) .venv-storage demo bench
