"""The commands of `dissect-xr`, each with its options and what it prints."""
