"""``python -m serve.jobs``: runs jobs of data sync, one at a time in a whole deployment.

Each step may be done again: whoever takes a job over from a process that died begins it anew, and what is done already
costs little. The registry alone says whose a job is. Crash-only: what a step does not answer ends the process.
"""
