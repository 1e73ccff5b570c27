"""Derived layers in a run: what a recipe says of them, what they take, and when they are written."""
