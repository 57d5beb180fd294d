"""Logs and metrics: what the server says about itself, never about what it was asked."""
