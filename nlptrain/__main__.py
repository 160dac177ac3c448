"""``python -m nlptrain``: the same as the command ``nlptrain``."""

from nlptrain.cli import main

main()
