"""Encryption before objects leave the writer: envelopes, data keys, who wraps them, and how contents are read."""
