"""What becomes of runs: which there are, how large they are, and how they travel."""
