"""From a question to an answer: SQL over sealed segments, in a sandbox, on a snapshot.

`engine.QueryEngine` is the face. Inside: `catalog` knows which segments a snapshot has, `cache` lets only checked files
through, `views` writes the SQL of the views, `slots` says who may run a query now, `pool` keeps and watches processes,
`worker` is such a process with its walls `sandbox` and `guard` (and `functions`), `results` encodes answers, `frames`
is what server and worker say.

Questions that need no SQL of the asker's own are written by `search`, `timeline` and `pivots`, or stand ready in
`investigations`; `prepared` fills their blanks; `counts` knows the hourly counts that the log commits to. `convert`
turns a kept answer into another format.

This module imports nothing: a worker process imports only what it needs.
"""
