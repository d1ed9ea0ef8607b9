"""The sources in the words of the Open Cybersecurity Schema Framework: which records are events of which class.

A view a class, such as `ocsf_api_activity`, with the class's own columns as nested values: `actor.user.name`, as in the
tables of Amazon Security Lake. Each view is a union of parts; a part takes the records of one source that are of the
class. What a source does not say is NULL. Names and numbers are those of OCSF 1.1 (schema.ocsf.io); where the mapping
leaves a choice, it is the one Security Lake made, as AWS's published pairs of raw and mapped events show.

Nothing of this is stored: a mapping that was wrong can be put right for all that was ever sealed.

event_class.py   what a class and a part are      network.py    Network, DNS and HTTP Activity
identity.py      who did what to whom             findings.py   Detection and Compliance Finding
mapped.py        events that came in OCSF
"""

from __future__ import annotations

from strongroom.ingest.ocsf.event_class import OcsfClass, Part
from strongroom.ingest.ocsf.findings import COMPLIANCE_FINDING, DETECTION_FINDING
from strongroom.ingest.ocsf.identity import ACCOUNT_CHANGE, API_ACTIVITY, AUTHENTICATION
from strongroom.ingest.ocsf.mapped import with_mapped
from strongroom.ingest.ocsf.network import DNS_ACTIVITY, HTTP_ACTIVITY, NETWORK_ACTIVITY

__all__ = ["CLASSES", "OcsfClass", "Part"]

CLASSES: tuple[OcsfClass, ...] = tuple(
    with_mapped(item)
    for item in (
        ACCOUNT_CHANGE,
        AUTHENTICATION,
        API_ACTIVITY,
        NETWORK_ACTIVITY,
        HTTP_ACTIVITY,
        DNS_ACTIVITY,
        DETECTION_FINDING,
        COMPLIANCE_FINDING,
    )
)
"""Every class that is a view."""
