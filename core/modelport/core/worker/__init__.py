"""Inside a worker: frames, batches, the device thread, sessions."""
