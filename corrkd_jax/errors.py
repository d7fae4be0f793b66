"""Exception that tells a user about bad input, and what its one line is made of."""

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user: a file, a field or an option that cannot be used.

    The message is one line that names the file, the field and what to do, so that a program may
    print it without a traceback. Line breaks in it, which a name from a file may bring, become
    spaces, and the middle of a message beyond 2,000 characters is left out.
    """

    def __init__(self, message: str):
        line = " ".join(str(message).splitlines())
        super().__init__(line if len(line) <= 2000 else f"{line[:1500]} ... {line[-400:]}")


def few(names: Iterable[object], most: int = 8, separator: str = ", ") -> str:
    """The first of many names, for a message.

    Args:
        names: what to name, in order.
        most: names that are shown.
        separator: between two names.

    Returns:
        Such as "a, b and 40 more"; "none" where there is no name. A long name is cut.
    """
    listed = [" ".join(str(name).split()) for name in names]
    shown = [name if len(name) <= 120 else f"{name[:117]}..." for name in listed[:most]]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return separator.join(shown) + more or "none"


def reason(error: BaseException) -> str:
    """What an exception of a library says, in one line.

    Args:
        error: as caught.

    Returns:
        Its type and its text, of at most 200 characters.
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
