"""The process that runs a statement: checked, walled in, watched, and killed when it must be."""
