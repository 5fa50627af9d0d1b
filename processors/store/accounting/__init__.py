"""Accounting: how far the pipeline is, up to which moment everything is complete, and what is unaccounted for.

Delivery contract: what is written here is a claim about what others have made durable, and never claims too much. It
may be written by several workers at once; all write the same, or one of them less.
"""
