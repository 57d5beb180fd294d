"""Settings: TOML, environment and flags, checked all at once."""
