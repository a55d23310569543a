"""The exceptions that a user's mistake raises."""


class InputError(ValueError):
    """A fault in what the user gave: a file, a value, an option.

    The message is one line for people: which file or option, what is wrong with it,
    and what to do. The command line prints it and exits with status 2. What cannot be printed in
    one line, such as a line break in the name of a file, is escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class DiskError(InputError):
    """A disk that is full or read-only: nothing else can be written to it either."""


def one_line(text: str) -> str:
    r"""Text as one line that every terminal and file can take.

    Parameters
    ----------
    text : str
        Anything.

    Returns
    -------
    str
        With line breaks, control characters and what is no Unicode escaped.

    Examples
    --------
    >>> print(one_line("sub-01\n_asl.nii"))
    sub-01\n_asl.nii
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
