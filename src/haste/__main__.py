"""`python -m haste` is the `haste` command."""

from haste.cli import main

main()
