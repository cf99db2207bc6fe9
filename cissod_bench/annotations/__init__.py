"""What is in a data set."""
