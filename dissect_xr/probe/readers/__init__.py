"""Readers of label formats, one file a format."""
