"""`python -m ntire`: the command line."""

from ntire.cli import main

main()
