"""The commands a person types. Each is a few lines around a stage; heavy imports wait inside.

Logs and tables go to standard error, data to standard output. Exit codes: 0 PASS or done, 1 FAIL,
2 user error, 3 INCONCLUSIVE, 4 internal error, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
import traceback

import typer

from holdfast.commands import app
from holdfast.errors import HoldfastError

KINDS = ("story", "measure", "study", "reproduce", "windows", "contract", "lab")
"""Modules of commands, as `--help` lists them."""

for kind in KINDS:
    importlib.import_module(f"holdfast.commands.{kind}")


def main() -> None:
    """Entry point: one clear message for what the user can cure, a traceback for bugs only."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        sys.exit(130)
    except HoldfastError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("Interrupted. Run the same command again to go on.")
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error
            _complain(error.format_message())
            sys.exit(2)
        traceback.print_exc()
        _complain("This is a bug in Holdfast; the lines above say where.")
        sys.exit(4)


def _complain(message: str) -> None:
    print(f"holdfast: {message.rstrip()}", file=sys.stderr)


if __name__ == "__main__":
    main()
