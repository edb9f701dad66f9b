"""Mixpanel: product usage from its raw events, and whose workspaces they are."""
