"""What the skills share about checkpoints on disk: tokenizers, chat templates, detokenising, stop strings, tool calls,
images and image processors.

Importing this package imports nothing else; each module says what it needs. No module imports torch, and transformers is imported
only for image processors and for a checkpoint that has no tokenizer.json.
"""
