"""Days as files: built once, followed while they grow, kept within bounds."""
