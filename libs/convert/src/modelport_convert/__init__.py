"""What the converting backends share: jobs, the cache of their results, and the child process that carries them out.

Importing this package imports nothing else, and no module of it imports torch.
"""
