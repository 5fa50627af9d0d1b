"""What became of an event: every arrival of a ``mid``, wherever it is, and a verdict."""
