"""From a question over HTTP to an answer: run, recorded, kept, compressed."""
