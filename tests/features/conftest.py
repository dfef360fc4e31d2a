"""Fixtures of the tests of features."""

import pytest

from .implementations import Implementation


@pytest.fixture(params=["oracle", "package"])
def implementation(request, device):
    """The oracle in float64 with tight tolerances, so that the judge is judged first; the package.

    The package computes in float32 and has the tolerances of section 8 of features.md.
    """
    if request.param == "oracle":
        if device.type != "cpu":
            pytest.skip("the oracle knows no devices")
        return Implementation(None)
    return Implementation(device)
