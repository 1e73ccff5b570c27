"""Which pixels of the image a cell of a layer sees."""
