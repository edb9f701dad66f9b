"""From sources to signals, and from scores to what a CRM would receive."""
