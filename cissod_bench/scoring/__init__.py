"""What AP is here."""
