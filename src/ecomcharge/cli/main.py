"""The command line: ``ecomcharge serve``, and what an operator does besides."""

from __future__ import annotations

import os
import sys

import ecomcharge
from ecomcharge.base.errors import EcomchargeError, Unavailable


def main(arguments: list[str] | None = None) -> None:
    """Run a command, the command line's unless one is given.

    What an operator can mend is told in one sentence on standard error, with exit code 1.
    """
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(ecomcharge.__version__)
        return
    from ecomcharge.cli.commands import cli  # cyclopts takes 0.1 s, which --version does not need

    try:
        cli(arguments)
    except Unavailable as error:
        print(f"ecomcharge: the database is not available: {error.__cause__ or error}", file=sys.stderr)
        sys.exit(1)
    except EcomchargeError as error:
        print(f"ecomcharge: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has had enough
        sys.exit(1)
    except KeyboardInterrupt:
        print("ecomcharge: stopped; the same command goes on where this one was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
