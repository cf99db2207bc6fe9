"""How a run is started, shared and continued."""
