"""Amplitude: product usage from its exported events, and whose workspaces they are."""
