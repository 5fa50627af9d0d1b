"""``python -m midstream.cli`` is the command ``midstream``."""

from midstream.cli import main

main()
