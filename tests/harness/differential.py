"""Runs the same probes against dockerd and Gantry, one engine after the other, and compares what they saw.

A probe is a function of an engine that returns plain values. What must differ between two runs (ids, times, addresses) is
replaced by what it is, in the order of its appearance, so that equal behaviour gives equal values.
"""

import difflib
import re

_RULES = (
    ("sha256", re.compile(r"sha256:[0-9a-f]{64}")),
    ("id", re.compile(r"\b[0-9a-f]{64}\b")),
    ("time", re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")),
    ("mac", re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b")),
    ("id", re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{12}\b")),
)


class Normaliser:
    """Replaces ids by <id 1>, <id 2>…; a short id has the number of its long one."""

    def __init__(self, root=""):
        self.root = str(root)
        self.known = {}

    def _name(self, kind, text):
        if kind == "time":
            return "<never>" if text.startswith("0001-") else "<time>"
        key = text.removeprefix("sha256:")[:12] if kind in ("id", "sha256") else text
        if key not in self.known:
            self.known[key] = f"<id {len(self.known) + 1}>" if kind != "mac" else "<mac>"
        return self.known[key]

    def text(self, value):
        if self.root:
            value = value.replace(self.root, "<root>")
        for kind, pattern in _RULES:
            value = pattern.sub(lambda match, kind=kind: self._name(kind, match.group(0)), value)
        return value

    def __call__(self, value):
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple)):
            return [self(each) for each in value]
        if isinstance(value, dict):
            return {self(key): self(each) for key, each in value.items()}
        return value


class Failed(str):
    """What a probe ended with, in place of a result."""


def record(engine, probes, clean):
    """{name: result} of all the probes; `clean` is called after each."""
    results = {}
    for name, probe in probes.items():
        normalise = Normaliser(engine.root)
        try:
            results[name] = normalise(probe(engine))
        except Exception as error:  # the comparison shows it
            results[name] = Failed(f"{type(error).__name__}: {normalise.text(str(error))}")
        finally:
            clean(engine)
    return results


def check(dockerd, gantry):
    """Fails with the difference of two lists of lines."""
    if dockerd != gantry:
        raise AssertionError("\n" + "\n".join(difflib.unified_diff(dockerd, gantry, "dockerd", "gantry", lineterm="", n=2)))


def shape(value):
    """The keys and the kinds of values of a JSON document."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "null" if value is None else {bool: "bool", int: "number", float: "number", str: "text"}[type(value)]
