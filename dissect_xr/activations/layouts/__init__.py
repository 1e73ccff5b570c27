"""How the tensor that a tap gives becomes maps (image, unit, y, x), and how that is found out and tested."""
