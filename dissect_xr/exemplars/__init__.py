"""The images that show what a unit is, and where on them it is active."""
