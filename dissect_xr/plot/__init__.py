"""Figures of the answers."""
