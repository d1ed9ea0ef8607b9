"""Logs that lie in buckets: what a queue announces (pull) and what a prefix holds (backfill), through the same
intake."""
