"""The papers' experiments, one file a question: stores in, a Dataset out, stored under `experiments/` of a run."""
