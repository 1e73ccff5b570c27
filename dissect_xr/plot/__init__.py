"""Figures of a dissection, drawn with matplotlib."""
