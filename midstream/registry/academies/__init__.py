"""Learning platforms: academies, users and what they may do, and which assignment records there are. All calls block,
but those of ``access``: async code runs them in a thread."""
