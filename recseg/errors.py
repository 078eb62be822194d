"""The one error a user can cause: always a single clear line, never a traceback on the command line."""


class RecsegError(ValueError):
    """Bad input. The message is one line that names the file or value and says what was expected."""
