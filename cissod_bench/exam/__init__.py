"""A method's exam: what every method must keep, checked on a toy task. ``sitting.examine`` sits it."""
