"""What is on disk: find, draw, list, verify, compare, import and export splits; check data."""
