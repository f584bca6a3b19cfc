"""The last independent step before the arm's driver: checks, latch and emergency stop."""
