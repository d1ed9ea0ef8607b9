"""CloudTrail's own evidence: signed digests, read, checked and held against what was sealed."""
