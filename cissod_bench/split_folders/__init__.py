"""What is on disk: find, draw, list, verify, compare and import splits; check data."""
