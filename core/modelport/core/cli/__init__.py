"""The command line: `modelport …`."""
