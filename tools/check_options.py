#!/usr/bin/env python3
"""Compares the settings table with the rest of the sources: a setting that nothing reads must say so (`no_effect`), and
one that says so must not be read. What is reported to clients only (system_info, system_warnings) does not count.

Usage: check_options.py SRC    Exit status 1 if the table is wrong.
"""

import re
import sys
from pathlib import Path

src = Path(sys.argv[1])
table = (src / "config/options.cpp").read_text()
rows = re.findall(r"\{\s*\.key = \"([^\"]+)\",(.*?)\}(?=,\s*(?://|\{|\}\)))", table, re.S)
reported_only = ("system_info", "system_warnings", "info_", "_test.")
sources = [path.read_text() for path in src.rglob("*.[ch]pp")
           if path.parent.name != "config" and not any(part in path.name for part in reported_only)]
# Read inside config/ already: hosts and TLS when listeners are settled, exec-opts when the host is probed.
read_here = {"exec-opts", "tls", "tlsverify", "storage-driver", "firewall-backend", "live-restore", "experimental", "storage-opts"}

wrong = []
for key, row in rows:
    member = re.search(r"&C::(\w+)", row)
    if member is None or key in read_here:
        continue
    used = any(re.search(rf"(?<!\bos)(\.|->){member[1]}\b", text) for text in sources)
    silent = ".no_effect" in row
    if used == silent:
        wrong.append(f"{key}: " + ("is read, but its row says no_effect" if used else "nothing reads it: say no_effect"))
print("\n".join(wrong), end="\n" if wrong else "")
sys.exit(1 if wrong else 0)
