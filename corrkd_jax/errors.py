"""Exception that tells a user about bad input."""


class InputError(ValueError):
    """Bad input from the user: a file, a field or an option that cannot be used.

    The message is one line that names the file, the field and what to do, so that a program may
    print it without a traceback.
    """
