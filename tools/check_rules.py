#!/usr/bin/env python3
"""Rules of the house that a line of text can break. A comment made twice in review becomes a rule here.

Usage: check_rules.py FILE...    Prints file:line: message; exit status 1 if there is any.
"""

import re
import sys

# (what is looked for, where it is allowed, message)
RULES = [
    (r"\basio::detached\b", r"async/task_group\.cpp$|_test\.cpp$", "spawn through async::TaskGroup, which can be joined"),
    (r"this_thread::sleep|\b(usleep|nanosleep)\b", r"_test\.cpp$|base/failpoint\.cpp$",
     "wait for the event, not for time"),
    (r"(?<![\w.:>])(system|popen)\(", r"^$", "start programs with sys::spawn: no shell"),
    (r"\b(TODO|FIXME|XXX)\b", r"^$", "done means done; otherwise it is an issue with a number"),
    (r"^using namespace (?!std::|boost::asio::experimental)", r"^$", "no using-directive at file scope"),
    (r"catch \(\.\.\.\)", r"async/|api/connection\.cpp$|engine/supervisor|main\.cpp$|app\.cpp$",
     "catch Error, look at its code, rethrow the rest"),
    (r"co_spawn\([^;]*\[&", r"_(test|fuzz)\.cpp$|app\.cpp$", "a coroutine outlives the references that [&] takes"),
    (r"co_await [\w.>:-]+\(\s*\{", r"_test\.cpp$", "name the struct first: g++ 12 frees a braced temporary twice"),
    (r"\bdup\(", r"^$", "F_DUPFD_CLOEXEC: every descriptor is close-on-exec from birth"),
]
LONGEST_FILE = 600


def _rethrows(block):
    return any(re.search(r"\bthrow;|current_exception\(\)", line) for line in block)


def check(path):
    found = []
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for number, line in enumerate(lines, 1):
        code = line.split("//")[0] if "TODO" not in line and "FIXME" not in line else line
        for pattern, allowed, message in RULES:
            if message.startswith("catch") and _rethrows(lines[number : number + 10]):
                continue
            if re.search(pattern, code) and not re.search(allowed, path):
                found.append(f"{path}:{number}: {message}")
    if len(lines) > LONGEST_FILE:
        found.append(f"{path}:{LONGEST_FILE}: {len(lines)} lines; split it by noun or verb")
    return found


def main():
    problems = [problem for path in sys.argv[1:] for problem in check(path)]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


sys.exit(main())
