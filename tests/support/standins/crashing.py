"""Ends at once."""

import sys

sys.exit("this one cannot run")
