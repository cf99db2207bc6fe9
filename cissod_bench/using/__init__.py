"""How a trained detector is used: on photographs, and by other programs."""
