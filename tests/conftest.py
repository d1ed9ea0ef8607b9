"""For all tests: property tests are judged by what they find, not by how busy the machine is. One S3 for who asks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests import buckets

settings.register_profile("strongroom", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("strongroom")


@pytest.fixture(scope="session")
def s3() -> buckets.S3:
    """An S3 API on loopback (moto's), started when the first test asks."""
    return buckets.shared()
