"""Where models come from beside functions: libraries, by name, and modules of this process."""
