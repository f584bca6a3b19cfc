"""Base class of everything that is emitted while a launched system runs."""


class Event:
    """Something that happened; event handlers match on its type and content."""

    name = "launch.Event"
