"""Freshdesk: tickets with their statistics, companies and satisfaction ratings."""
