"""A network run again and again from one layer on, with units of that layer ablated."""
