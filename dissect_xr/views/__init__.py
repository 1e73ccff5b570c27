"""Figures and tables of the answers."""
