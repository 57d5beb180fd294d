"""Private machinery of the server. Plugins never import it; the order of the rooms is the way of a request."""
