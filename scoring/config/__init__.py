"""What the YAML of metrics, scorecards and profiles may say, as pydantic models."""
