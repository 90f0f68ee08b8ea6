"""What was given cannot be used, and how to mend it: an exception, and checks that raise it."""


class InputError(ValueError):
    """Bad input: the message says what was expected, what was given, and the remedy.

    The command line prints the message alone and exits with code 2; library users catch it
    as the ``ValueError`` it is.
    """
