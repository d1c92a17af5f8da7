"""Builds by POST /build, as the docker client without plugins makes them."""

import io
import re
import tarfile


def context(dockerfile, files=(), name="Dockerfile"):
    """A tar with the Dockerfile and files: path -> text, bytes, or a tarfile.TarInfo with everything but a name."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, content in {name: dockerfile, **dict(files)}.items():
            if content is None:
                continue
            if isinstance(content, tarfile.TarInfo):
                content.name = path
                tar.addfile(content)
                continue
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def build(api, dockerfile, files=(), headers=(), **query):
    """The lines of the answer; a failure is the last of them."""
    name = query.get("dockerfile") or "Dockerfile"
    reply = api.post("/build", query, data=context(dockerfile, files, name),
                     headers={"Content-Type": "application/x-tar", **dict(headers)})
    assert reply.status == 200, reply
    return reply.lines()


def built(api, dockerfile, files=(), **query):
    """The image's ID."""
    lines = build(api, dockerfile, files, **query)
    assert "errorDetail" not in lines[-1], lines[-3:]
    return [line["aux"]["ID"] for line in lines if "aux" in line][-1]


def text(lines):
    return "".join(line.get("stream", "") for line in lines)


def masked(lines):
    """The text with what differs from build to build replaced."""
    out = re.sub(r"\b[0-9a-f]{12}\b", "ID", text(lines))
    # Docker 20.10's word for it; later ones say "Removed".
    return out.replace("Removed intermediate container", "Removing intermediate container").replace(" ---> Removing", "Removing")
