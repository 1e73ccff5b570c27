"""Scores, labels, detectors and comparisons, computed from the counts of a dissection."""
