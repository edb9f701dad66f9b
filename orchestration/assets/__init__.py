"""The assets, one module for each layer: raw, signals, metrics, scores, plan."""
