"""Intercom: conversations with customers, and their companies."""
