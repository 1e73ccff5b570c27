"""Where a cell of a layer looks in the image."""
