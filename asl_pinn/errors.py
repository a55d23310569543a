"""The exceptions that a user's mistake raises."""


class InputError(ValueError):
    """A fault in what the user gave: a file, a value, an option.

    The message is one line for people: which file or option, what is wrong with it,
    and what to do. The command line prints it and exits with status 2.
    """


class DiskError(InputError):
    """A disk that is full or read-only: nothing else can be written to it either."""
