#!/usr/bin/env python3
"""Checks the direction of includes between the modules of src/.

usage: check_layers.py SRC LAYERS

Every line of LAYERS says which modules a module may include. A module that is not listed, an include that its line
does not allow, and a line that names a module below it are each reported; the exit status is 1 if there was any.
Files directly in src/ (main.cpp, app.*) may include everything.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'\s*#\s*include\s+"([a-z0-9_]+)/')


def read_table(path):
    table, problems = {}, []
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        module, _, allowed = text.partition(":")
        names = allowed.split()
        for name in names:
            if name not in table:
                problems.append(f"{path}:{number}: {module.strip()} names {name}, which is not above it")
        table[module.strip()] = set(names)
    return table, problems


def check_file(path, module, table):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = INCLUDE.match(line)
        if found and found[1] != module and found[1] in table and found[1] not in table[module]:
            yield f"{path}:{number}: {module} must not include {found[1]}"


def main(src, layers):
    table, problems = read_table(layers)
    src = pathlib.Path(src)
    for path in sorted(src.rglob("*.[ch]pp")):
        parts = path.relative_to(src).parts
        if len(parts) < 2:
            continue
        if parts[0] not in table:
            problems.append(f"{path}: module {parts[0]} is not in {layers}")
            continue
        problems.extend(check_file(path, parts[0], table))
    print("\n".join(problems) if problems else f"layers: {len(table)} modules, no problem")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
