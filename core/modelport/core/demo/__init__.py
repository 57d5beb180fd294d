"""Small real models from the package index, for a first try and for tests: no hub, no account."""
