"""Strongroom: a log archive that can prove its contents.

Data flows one way: receive → spool → parse → seal → commit → query / verify. The packages follow it:

    archive/   the locked archive and its proofs; knows no HTTP and no log format
    ingest/    from a delivery to a sealed entry
    query/     from a question to an answer
    service/   the HTTP application and the command line; the only place where the parts meet
"""

__version__ = "0.1.0"
