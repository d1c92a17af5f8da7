"""docs/compatibility.md has a line for each operation that the API defines."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEFINITION = ROOT.parent / "shared" / "api" / "engine-api-1.56.yaml"
ELSEWHERE = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins")


def operations():
    text = DEFINITION.read_text()
    path = None
    for line in text[text.index("\npaths:") :].splitlines():
        if found := re.match(r'  "?(/[^":]*)"?:$', line):
            path = found[1]
        elif (found := re.match(r"    (get|post|put|delete|head):$", line)) and path:
            yield f"{found[1].upper()} {path}"


@pytest.mark.gantry_only
def test_every_operation_has_a_line():
    page = (ROOT / "docs" / "compatibility.md").read_text()
    # The definition lies beside the project, not in it; a checkout without it has nothing to compare with.
    if not DEFINITION.exists():
        return
    missing = [op for op in operations() if not op.split()[1].startswith(ELSEWHERE) and f"`{op}`" not in page]
    assert missing == []
