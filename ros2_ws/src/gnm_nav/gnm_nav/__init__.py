"""Visual navigation over topological maps, for any mobile robot with a camera."""
