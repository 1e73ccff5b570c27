"""Readers of label formats, one module for each format."""
