"""Snapshots of a network while it is trained, dissected at once if asked."""
