"""Zendesk Support: tickets with their metrics, organizations and satisfaction ratings."""
