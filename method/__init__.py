"""The method: GbR (Sec. 3.2), GbT (Sec. 3.3) and CrS (Sec. 3.4)."""
