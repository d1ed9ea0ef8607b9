"""From a question to an answer: SQL over sealed segments, in a sandbox, on a snapshot.

`engine.QueryEngine` is the face. Inside, in the order of a question's way:

    slots                       who may run a query now
    catalog, kept_catalog       what a snapshot has; `segments` in columns
    where, conditions, mentions what a statement wants: which rows, which columns; `narrowing`, what its sender adds
    pruning, index, indexing    which segments can hold that, by a local index of entities
    cache, shelf                only checked files get through
    views, normalised, setup    the SQL of the views that the statement needs
    unsealed                    what they may have beside segments, when asked for
    overview                    which views there are, and what is behind each
    pool, running               processes, kept and watched; one query on one of them
    worker                      such a process, with its walls `sandbox` and `guard` (and `functions`)
    results                     the answer, encoded; `frames` is what server and worker say

Questions that need no SQL of the asker's own are written by `search`, `timeline` and `pivots`, or stand ready in
`investigations`; `prepared` fills their blanks; `counts` knows the hourly counts that the log commits to. `convert`
turns a kept answer into another format.

This module imports nothing: a worker process imports only what it needs.
"""
