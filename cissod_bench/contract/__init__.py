"""All that the author of a method reads: what a method may change."""
