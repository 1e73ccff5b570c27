"""Reads and writes results as files of other programs."""
