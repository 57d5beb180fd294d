"""Where a model runs: what hardware there is, and the decision, kept with its reasons."""
