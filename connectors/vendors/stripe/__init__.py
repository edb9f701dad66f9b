"""Stripe: customers, subscriptions and invoices."""
