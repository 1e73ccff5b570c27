"""Which files of tests take longest."""

LONGEST = (
    "chaos/test_chaos.py",
    "dissection/test_memory.py",
    "test_camvid.py",
    "test_camvid_run.py",
    "store/test_repair.py",
    "fuzz/test_fuzz_runs.py",
    "models/test_placement.py",
    "cli/test_faults.py",
    "cli/test_main.py",
    "cli/test_experiments.py",
    "cli/test_derived_recipes.py",
    "store/test_verify.py",
    "store/test_object_store.py",
    "test_notebooks.py",
    "dissection/test_dissect.py",
    "dissection/test_label_formats.py",
    "analysis/test_scores.py",
    "dissection/test_domains.py",
)
"""Files that take longest, in this order: they are begun first, so that none is left for one process at the end."""
