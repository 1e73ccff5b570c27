"""Readers of sources whose images are no files: they are written to a folder first."""
