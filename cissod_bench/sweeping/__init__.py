"""How a queue of runs is worked off."""
