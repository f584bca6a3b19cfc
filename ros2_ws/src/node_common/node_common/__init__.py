"""What every node does: running, parameters, clocks, pacing, images, diagnostics of the graph."""
