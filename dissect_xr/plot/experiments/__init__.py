"""Figures of experiments, a file for each kind."""
