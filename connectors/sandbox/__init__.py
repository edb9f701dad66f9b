"""The sandbox: a synthetic company to learn and test with; no real data, no network."""
