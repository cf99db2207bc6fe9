"""What did it see."""
