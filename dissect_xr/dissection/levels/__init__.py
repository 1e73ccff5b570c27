"""Levels that a number of values exceed: histograms of codes, and what the bounds of a tail prove."""
