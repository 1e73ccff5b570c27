"""Readers of published sets of scenes that are labelled pixel by pixel, one file a format."""
