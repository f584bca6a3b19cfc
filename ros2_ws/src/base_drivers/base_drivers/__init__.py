"""Drivers of mobile bases, and the guard that stands before them."""
