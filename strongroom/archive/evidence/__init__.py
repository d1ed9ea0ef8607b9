"""Evidence: records and their proofs in one file that a stranger can check offline (docs/format.md §9 and §10).

    write           records chosen in an archive → a bundle (ZIP), streamed                       writing.py
    check           a bundle → a verdict under the checker's own policy                           checking.py
    prove_record    one record → one small JSON document; check_proof: its verdict                record.py
    compare         a bundle or a proof made earlier ↔ an archive: was its history rewritten?     comparing.py

    selection.py    what may be put into a proof, checked first          tree.py       many records, shared hashes
    package.py      the ZIP file, as streams                             layout.py     names and the table of contents
    verdict.py      what is concluded, under which keys                  cover.py      the pages for people
    timestamp.py    what an RFC 3161 token says                          commands.py   … for openssl and sha256sum

The same verdicts come from archive/standalone/verify.py, which every bundle carries: one file, nothing but Python's
standard library, no line shared with this package.
"""

from strongroom.archive.evidence.checking import check
from strongroom.archive.evidence.comparing import compare
from strongroom.archive.evidence.record import check_proof, prove_record
from strongroom.archive.evidence.selection import Pick
from strongroom.archive.evidence.verdict import Line, Verdict
from strongroom.archive.evidence.writing import Summary, write

__all__ = ["Line", "Pick", "Summary", "Verdict", "check", "check_proof", "compare", "prove_record", "write"]
