"""Bases: which linear maps over the units of a layer are dissected as layers of their own."""
