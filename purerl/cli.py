"""What the commands share: a parser whose mistakes are one line, and exit codes for user errors. Imports no JAX."""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from purerl.errors import UsageError, is_own

EXIT_USER_ERROR = 2


class Parser(argparse.ArgumentParser):
    """`argparse` prints its usage before an error; one line is enough when --help is there."""

    def __init__(self, prog: str, description: str | None = None):
        super().__init__(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        close = difflib.get_close_matches(unknown, list(self._option_string_actions), n=1)
        hint = f"; did you mean {close[0]}?" if close and unknown != message else " (see --help)"
        raise UsageError(f"{message}{hint}")


def checkpoint_name(text: str) -> str | int:
    """`best`, `latest` or the number of an epoch."""
    if text in ("best", "latest"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not best, latest or the number of an epoch")


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from `least` to `most`; what is counted on the device has 32 bits."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid int value: '{text[:40]}'") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
        if number > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, not {number}")
        return number

    return read


def run_command(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """Exit code of a command; what the user can put right becomes one line on stderr and exit code 2.

    Anything else is a defect of this program and keeps its traceback.
    """
    try:
        return command(argv)
    except Exception as error:
        if not _is_user_error(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        return True
    return isinstance(error, ValueError) and is_own(error)
