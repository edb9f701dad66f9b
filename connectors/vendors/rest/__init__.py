"""Any API, described in YAML."""
