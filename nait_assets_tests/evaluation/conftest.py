"""What tests of evaluation share."""

import pytest

from nait_assets.errors import SetupError
from nait_assets.evaluation.isolation import require_isolation


@pytest.fixture(scope="session")
def isolating() -> None:
    """Skip where nothing can be isolated, as in some containers; a program is run nowhere else."""
    try:
        require_isolation()
    except SetupError as error:
        pytest.skip(str(error))
