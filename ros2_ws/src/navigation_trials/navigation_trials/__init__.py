"""Trials of navigation in simulated worlds, and the courses that are driven in them."""
