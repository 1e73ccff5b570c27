"""The one error that users are meant to read.

Knows: that a message says what was expected, what came, and how to mend it.
Does not know: where it is shown; the command line prints it and exits with 2, a notebook raises it.
"""


class DissectError(ValueError):
    """Something the user gave does not fit: a file, a recipe field, an array. The message says how to mend it."""
