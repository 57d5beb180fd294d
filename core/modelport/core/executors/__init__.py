"""Where replicas run: a child process, or a thread of this one."""
