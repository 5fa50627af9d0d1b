"""Erases a person from what is stored: a pseudonym stands in place of the id.

Events keep their number and place: each is written again under the pseudonym, as ``actor_id`` is part of the tables'
order and cannot be updated. The copies are held back by the view ``events`` until they can be shown in place of the
others at one moment (see :mod:`midstream.correct.overlay`). What is removed leaves the disk, and is not only marked.
"""
