"""`python -m holdfast`: the same as the command, for launchers that start modules."""

from holdfast.cli import main

main()
