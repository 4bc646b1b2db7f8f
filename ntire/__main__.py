"""`python -m ntire`: the command line."""

import sys
from pathlib import Path

# Python has put the working directory first: what lies there by chance is not what ntire and its packages import.
if sys.path[0] == str(Path.cwd()) != str(Path(__file__).resolve().parents[1]):
    del sys.path[0]

from ntire.cli import main

main()
