"""The entry point of the command line."""

from __future__ import annotations

import os
import sys

import ecomcharge
from ecomcharge.base.errors import EcomchargeError, Unavailable
from ecomcharge.base.text_forms import printable

LINE_FEED = "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the command in ``arguments``, by default that of the command line.

    Prints an error that an operator can correct as one sentence on standard error, and exits with code 1.
    """
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(ecomcharge.__version__)
        return
    from ecomcharge.cli.commands import cli  # cyclopts takes 0.1 s, which --version does not need

    try:
        cli(arguments)
    except Unavailable as error:
        reason = printable(str(error.reason or error.__cause__ or error))
        print(f"ecomcharge: the database is not available: {reason}", file=sys.stderr)
        sys.exit(1)
    except EcomchargeError as error:
        print(f"ecomcharge: {printable(str(error), keep=LINE_FEED)}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader closed the pipe: discard the rest
        sys.exit(1)
    except KeyboardInterrupt:
        print("ecomcharge: stopped; run the same command again to complete its work", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
