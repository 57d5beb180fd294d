"""The HTTP server: authentication, routes, errors, health, the socket."""
