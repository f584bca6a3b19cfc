"""Goal-conditioned navigation models: networks, data, training, export."""
