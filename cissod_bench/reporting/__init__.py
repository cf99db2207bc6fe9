"""Which numbers stand in a table."""
