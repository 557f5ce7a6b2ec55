"""What learns from a batch: networks, distributions, values, objectives, targets, the update."""
