"""The built-in probe: composed images of real handwritten digits."""
