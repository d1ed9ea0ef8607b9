"""Where the archive lies and how it is locked: opening it, the bucket's settings, holds."""
