"""Typeform: answers to forms."""
