"""Makes image archives as `docker save` writes them, the same bytes every time."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

_EPOCH = 1672531200  # 2023-01-01, for every time stamp
_CREATED = "2023-01-01T00:00:00Z"
BUSYBOX_TAG = "busybox:latest"


def _add(archive, name, data=None, mode=0o644, kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime, entry.linkname = kind, mode, _EPOCH, link
    entry.uname = entry.gname = ""
    if data is not None:
        entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data) if data is not None else None)


def layer(files):
    """An uncompressed layer. `files`: path -> bytes, or None for a directory, or ("link", target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            value = files[name]
            if value is None:
                _add(archive, name, mode=0o1777 if name == "tmp" else 0o755, kind=tarfile.DIRTYPE)
            elif isinstance(value, tuple):
                _add(archive, name, kind=tarfile.SYMTYPE, link=value[1], mode=0o777)
            else:
                _add(archive, name, value, mode=0o755 if name.startswith("bin/") else 0o644)
    return buffer.getvalue()


def archive(tags, layers, config=None, history=None):
    """The bytes of a `docker save` archive that holds one image."""
    digests = ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
    document = {
        "architecture": _architecture(),
        "os": "linux",
        "created": _CREATED,
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"],
                   **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": history or [{"created": _CREATED, "created_by": f"layer {n}"} for n in range(len(layers))],
    }
    config_bytes = json.dumps(document, sort_keys=True).encode()
    config_name = hashlib.sha256(config_bytes).hexdigest() + ".json"
    names = [digest.split(":")[1] + "/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": config_name, "RepoTags": tags, "Layers": names}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as out:
        _add(out, config_name, config_bytes)
        for name, data in dict(zip(names, layers)).items():
            _add(out, name.split("/")[0], mode=0o755, kind=tarfile.DIRTYPE)
            _add(out, name, data)
        _add(out, "manifest.json", manifest)
    return buffer.getvalue()


def _architecture():
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def busybox_files():
    """A root file system around the distribution's static busybox."""
    program = shutil.which("busybox")
    if program is None:
        raise RuntimeError("busybox is missing: apt-get install busybox-static")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    files = {name: None for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var",
                                     "var/www")}
    files["bin/busybox"] = Path(program).read_bytes()
    for applet in applets:
        if applet != "busybox":
            files["bin/" + applet] = ("link", "busybox")
    files["etc/passwd"] = (b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
                           b"alice:x:1000:1000:alice:/home:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
    files["etc/group"] = b"root:x:0:\ndaemon:x:1:\nstaff:x:50:alice\nalice:x:1000:\nnogroup:x:65534:\n"
    files["var/www/index.html"] = b"It works: a container answers.\n"
    return files


def busybox_archive():
    return archive([BUSYBOX_TAG], [layer(busybox_files())])


def layered_archive(tag, sizes, compressible=False):
    """An image on busybox with one more layer of about `sizes[n]` bytes each, for pulls."""
    layers = [layer(busybox_files())]
    for number, size in enumerate(sizes):
        layers.append(layer({f"blob-{number}": _noise(number, size, compressible)}))
    return archive([tag], layers)


def _noise(seed, size, compressible):
    if compressible:
        return (f"line {seed} of a file that compresses well\n" * (size // 40 + 1)).encode()[:size]
    import random

    return random.Random(seed).randbytes(size)
