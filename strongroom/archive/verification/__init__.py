"""Verification: what can be found to be wrong, level by level, against the verifier's own trust."""
