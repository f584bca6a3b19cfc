"""A Kobuki base without the base: its serial protocol on a pseudo-terminal."""
