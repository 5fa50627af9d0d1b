"""The whole pipeline on one machine, without Docker: what `make run` does.

In the order of a start: :mod:`prerequisites` and :mod:`environment` (both run with the system's Python, before
anything is installed), :mod:`launcher` (the foreground process), :mod:`home`, :mod:`orphans`, :mod:`ports`,
:mod:`jars`, :mod:`broker`, :mod:`supervision` over :mod:`supervise`, :mod:`pipeline` (the steps), :mod:`watch`.
"""
