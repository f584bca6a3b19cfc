"""Training of robot policies: networks, losses, data, training loop, evaluation and export."""
