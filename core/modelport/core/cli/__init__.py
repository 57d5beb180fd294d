"""The command line: each command parses, asks the rooms below, and prints."""
