"""What a device reports, and the state that its reports add up to. Pure: no I/O."""
