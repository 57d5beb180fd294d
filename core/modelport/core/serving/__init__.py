"""From a typed request to a replica and back: names, admission, deployments, residency."""
