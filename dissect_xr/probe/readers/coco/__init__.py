"""Readers of the formats of COCO and of the sets that are written as COCO is, one module for each."""
