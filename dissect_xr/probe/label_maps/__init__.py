"""The label maps of images in memory: without duplicates, counted, and as runs of equal labels."""
