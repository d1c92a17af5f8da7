"""docs/compatibility.md has a line for each operation that the API defines."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Method and path of each operation in the definition of API 1.56.
OPERATIONS = ROOT / "tests" / "golden" / "api-operations.txt"
# These have a line per family.
FAMILIES = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins")


@pytest.mark.gantry_only
def test_every_operation_has_a_line():
    page = (ROOT / "docs" / "compatibility.md").read_text()
    operations = OPERATIONS.read_text().splitlines()
    assert len(operations) == 108
    missing = [op for op in operations if not op.split()[1].startswith(FAMILIES) and f"`{op}`" not in page]
    assert missing == []
