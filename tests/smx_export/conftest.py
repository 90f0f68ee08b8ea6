"""What the tests of smx_export share."""

import pytest
from browsers import close_browsers


@pytest.fixture(scope="session", autouse=True)
def _browsers_end():
    yield
    close_browsers()
