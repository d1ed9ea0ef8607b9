"""moto's server, where it answers differently from S3 put right: `python -m tests.moto_server -H 127.0.0.1 -p 5000`.

A list of versions that starts after a name no object has: S3 goes on with the next name, moto 5.2 leaves that out.
"""

from __future__ import annotations

import sys
from typing import Any

from moto.s3.models import S3Backend
from moto.server import main

_list_object_versions = S3Backend.list_object_versions


def list_object_versions(self: S3Backend, bucket_name: str, *args: Any, **kwargs: Any) -> Any:
    after = kwargs.get("key_marker")
    if after is not None and not kwargs.get("version_id_marker"):
        names = self.get_bucket(bucket_name).keys
        if after not in names:
            kwargs["key_marker"] = max((name for name in names if name < after), default=None)
    return _list_object_versions(self, bucket_name, *args, **kwargs)


if __name__ == "__main__":
    S3Backend.list_object_versions = list_object_versions  # type: ignore[method-assign]
    main(sys.argv[1:])
