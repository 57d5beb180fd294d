"""Finding plugins, refusing those that cannot be used, and saying why."""
