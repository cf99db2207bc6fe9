"""Sub-tasks: one file, one sub-task (Sec. 4.1)."""
