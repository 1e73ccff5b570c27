"""Derived layers: linear maps over the units of a recorded layer, computed where a task reads its maps."""
