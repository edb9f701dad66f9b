"""PostHog: product usage by workspace and day, counted by PostHog itself."""
