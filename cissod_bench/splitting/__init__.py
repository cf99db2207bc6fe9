"""How a sub-task is drawn."""
