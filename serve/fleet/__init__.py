"""The operator's side of the fleet: devices, their state, and what they are to fetch."""
