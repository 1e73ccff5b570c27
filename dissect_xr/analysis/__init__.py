"""Answers, from the counts."""
