"""Builds with docker buildx of which one asks what came from the cache."""

import re
import subprocess

from . import clients


class Builds:
    def __init__(self, engine, directory):
        self.engine = engine
        self.directory = directory
        self.env = {**engine.client_env(), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

    def client(self, *args, code=0, input=None):
        result = subprocess.run([str(clients.buildx()), *map(str, args)], env=self.env, input=input,
                                capture_output=True, timeout=200, cwd=self.directory, text=True, errors="replace")
        assert code is None or result.returncode == code, f"{args}: {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def context(self, files, name="context"):
        root = self.directory / name
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if not (root / path).exists() or (root / path).read_text() != text:
                (root / path).write_text(text)
        return root

    def build(self, files, *args, name="context"):
        """{step as in the Dockerfile: was it cached?} Without a tag the result stays in the cache."""
        args = args if "-t" in args else (*args, "-o", "type=cacheonly")
        result = self.client("build", "--progress=plain", *args, self.context(files, name))
        names, cached = {}, set()
        for line in result.stderr.splitlines():
            if match := re.match(r"#(\d+) \[(?:[\w-]+ )?\s*\d+/\d+\] (.*)", line):
                names[match[1]] = match[2]
            elif match := re.match(r"#(\d+) CACHED", line):
                cached.add(match[1])
        assert names, result.stderr
        return {name: number in cached for number, name in names.items()}

    def usage(self, *args):
        return self.client("du", *args).stdout

    def records(self, *filters):
        text = self.usage("--verbose", *(f"--filter={each}" for each in filters))
        records = []
        for block in text.split("\n\n"):
            fields = dict(line.split(":", 1) for line in block.splitlines() if re.match(r"[A-Z][\w ]+:\s", line + " "))
            if "ID" in fields:
                records.append({key: value.strip() for key, value in fields.items()})
        return records

    def cat(self, image, path):
        return self.engine.docker("run", "--rm", image, "cat", path, check=True).stdout
