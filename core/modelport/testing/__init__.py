"""The conformance kit: suites to subclass, fakes to test against, and tiny checkpoints."""
