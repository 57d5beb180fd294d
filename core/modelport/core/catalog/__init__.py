"""What can be served: names, checkpoints, cards, families."""
