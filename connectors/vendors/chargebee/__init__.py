"""Chargebee: customers, subscriptions and invoices."""
