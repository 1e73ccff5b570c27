# Everything from a fresh machine: Python >= 3.11 and make. `make PYTHON=python3.12 test` uses another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test quick test-storage lint chaos fuzz bench clean

demo: $(INSTALLED)
	$(BIN)/python pipelines/train_digits.py --probe demo/digits --out demo/snapshots
	$(BIN)/dissect-xr run pipelines/digits.yaml --out demo/run

# Two processes: more would want more cores and memory. A file's tests share fixtures, so a file stays in one process.
# Files are begun in the order of tests/conftest.py, the longest first; xdist would begin with those of most tests.
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(BIN)/python -m pytest $(TOGETHER) $(PYTEST)

# What one wants after every edit: nothing that takes many seconds, starts processes or needs data, and an eighth of
# Hypothesis' examples.
quick: $(INSTALLED)
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow and not data" --hypothesis-profile=quick $(QUICK) $(PYTEST)

QUICK := tests/test_rooms.py tests/test_oracle.py tests/test_doctests.py tests/test_packaging.py tests/test_docs.py \
	tests/analysis tests/dissection/test_dissect.py tests/exemplars tests/io/test_export.py tests/io/test_netdissect_csv.py \
	tests/plot/test_plot.py tests/probe/test_probe.py tests/probe/test_colors.py tests/activations/test_geometry.py \
	tests/activations/test_taps.py tests/activations/test_sources.py tests/store/test_writer.py tests/test_accessor.py \
	--deselect tests/analysis/test_scores.py::test_same_for_every_chunking

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What another Python may change, which gets another zarr, NumPy, SciPy and numcodecs: all that reads, writes or counts,
# of what needs no torch; the rest is left out, loudly. Not again: the lock and the progress bars, which are files,
# processes and text; stores of tasks of more than 32 MiB, since one store shows what zarr keeps in memory.
test-storage: .venv-storage/installed
	.venv-storage/bin/python -m pytest $(TOGETHER) $(PYTEST) tests/store/test_writer.py tests/store/test_objects.py \
		tests/store/test_verified.py tests/store/test_concurrency.py tests/probe tests/dissection tests/analysis tests/io \
		tests/plot tests/exemplars tests/test_accessor.py tests/test_rooms.py \
		--deselect tests/dissection/test_memory.py::test_workers_of_512_mib_stay_by_the_projection \
		--deselect tests/dissection/test_memory.py::test_latents_of_an_autoencoder_are_dissected_in_bounded_memory

.venv-storage/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-storage
	.venv-storage/bin/python -m pip install --quiet -c constraints.txt \
		$$(.venv-storage/bin/python pipelines/requirements.py --without torch accelerate captum timm torchvision transformers)
	.venv-storage/bin/python -m pip install --quiet --no-deps -e .
	touch $@

# torch first and by itself: it is pinned, and a build that is installed already satisfies the rest. torchvision without
# what it depends on, which would be another build of torch.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps torchvision
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
