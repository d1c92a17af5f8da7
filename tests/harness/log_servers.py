"""Log servers that a test holds in its hand: syslog, fluentd, GELF and the journal, each over its transports."""

import gzip
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import time
import zlib


class Closed(Exception):
    pass


class Server:
    """Listens on the loopback or at a path; kind is tcp, udp, unix, unixgram or tls."""

    def __init__(self, kind, path=None, port=0, certificate=None):
        self.kind, self.path = kind, path
        self.stream = kind in ("tcp", "unix", "tls")
        family = socket.AF_UNIX if kind.startswith("unix") else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(str(path) if path else ("127.0.0.1", port))
        if self.stream:
            self.socket.listen(8)
        self.port = None if path else self.socket.getsockname()[1]
        self.address = str(path) if path else f"127.0.0.1:{self.port}"
        self._tls = None
        if kind == "tls":
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.client = None
        self.buffer = b""

    def accept(self, timeout=60):
        self.socket.settimeout(timeout)
        self.client = self.socket.accept()[0]
        if self._tls:
            self.client = self._tls.wrap_socket(self.client, server_side=True)
        return self.client

    def read(self, timeout=60):
        """A datagram, or what came of a stream."""
        source = self.client if self.stream else self.socket
        if self.stream and source is None:
            source = self.accept(timeout)
        source.settimeout(timeout)
        data = source.recv(1 << 20)
        if not data and self.stream:
            raise Closed
        return data

    def until(self, wanted, timeout=60):
        """Everything that came up to and with `wanted`."""
        deadline = time.monotonic() + timeout
        while wanted not in self.buffer:
            self.buffer += self.read(max(deadline - time.monotonic(), 0.01))
        return self.buffer

    def close(self):
        for each in (self.client, self.socket):
            if each is not None:
                each.close()
        if self.path:
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def certificate(directory, host="127.0.0.1"):
    """A self-signed certificate for the address: (certificate file, key file)."""
    files = directory / "cert.pem", directory / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=log", "-addext",
                    f"subjectAltName=IP:{host}", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return tuple(map(str, files))


class Fluentd(Server):
    """Yields (tag, time, record, option) of the forward protocol."""

    def message(self, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            try:
                value, rest = unpack(self.buffer)
                self.buffer = rest
                return value
            except IndexError:
                self.buffer += self.read(max(deadline - time.monotonic(), 0.01))

    def acknowledge(self, message):
        self.client.sendall(b"\x81\xa3ack" + pack_string(message[3]["chunk"]))


class Gelf(Server):
    """Puts datagrams together and takes them apart."""

    def message(self, timeout=60):
        if self.stream:
            data = self.until(b"\0", timeout)
            data, self.buffer = data.split(b"\0", 1)
            return json.loads(data)
        chunks = {}
        while True:
            data = self.read(timeout)
            if data[:2] == b"\x1e\x0f":
                chunks.setdefault(data[2:10], {})[data[10]] = data[12:]
                parts = chunks[data[2:10]]
                if len(parts) < data[11]:
                    continue
                data = b"".join(parts[n] for n in range(data[11]))
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            elif data[:1] == b"\x78":
                data = zlib.decompress(data)
            return json.loads(data)


class Journal(Server):
    """The journal's native socket; yields the fields of one entry."""

    def __init__(self, path="/run/systemd/journal/socket"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        super().__init__("unixgram", path)

    def message(self, timeout=60):
        self.socket.settimeout(timeout)
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, content in ancillary:
            fd = struct.unpack("i", content[:4])[0]
            data = os.pread(fd, os.fstat(fd).st_size, 0)
            os.close(fd)
        fields = {}
        while data:
            line, data = data.split(b"\n", 1)
            key, separator, value = line.partition(b"=")
            if not separator:
                size = struct.unpack("<Q", data[:8])[0]
                value, data = data[8:8 + size], data[9 + size:]
            fields[key.decode()] = value.decode(errors="replace")
        return fields


def pack_string(text):
    data = text.encode()
    return (bytes([0xa0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])) + data


def unpack(data):
    """One MessagePack value and what follows it. IndexError if it is not complete."""
    if not data:
        raise IndexError
    kind, rest = data[0], data[1:]

    def number(size, code):
        if len(rest) < size:
            raise IndexError
        return struct.unpack(">" + code, rest[:size])[0], rest[size:]

    def text(size, body):
        if len(body) < size:
            raise IndexError
        return body[:size].decode(errors="replace"), body[size:]

    def items(count, body):
        out = []
        for _ in range(count):
            value, body = unpack(body)
            out.append(value)
        return out, body

    def pairs(count, body):
        flat, body = items(count * 2, body)
        return dict(zip(flat[::2], flat[1::2])), body

    if kind < 0x80:
        return kind, rest
    if kind < 0x90:
        return pairs(kind & 15, rest)
    if kind < 0xa0:
        return items(kind & 15, rest)
    if kind < 0xc0:
        return text(kind & 31, rest)
    lengths = {0xd9: (1, "B", text), 0xda: (2, "H", text), 0xdb: (4, "I", text), 0xdc: (2, "H", items), 0xde: (2, "H", pairs),
               0xdf: (4, "I", pairs), 0xc4: (1, "B", text), 0xc5: (2, "H", text)}
    if kind in lengths:
        size, code, then = lengths[kind]
        count, body = number(size, code)
        return then(count, body)
    numbers = {0xcc: (1, "B"), 0xcd: (2, "H"), 0xce: (4, "I"), 0xcf: (8, "Q"), 0xd0: (1, "b"), 0xd1: (2, "h"), 0xd2: (4, "i"),
               0xd3: (8, "q"), 0xcb: (8, "d")}
    if kind in numbers:
        return number(*numbers[kind])
    if kind in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[kind], rest
    if kind == 0xd7 or (kind == 0xc7 and rest[:1] == b"\x08"):  # EventTime
        body = rest[1:] if kind == 0xd7 else rest[2:]
        if len(body) < 8:
            raise IndexError
        seconds, nanos = struct.unpack(">II", body[:8])
        return seconds + nanos / 1e9, body[8:]
    raise ValueError(f"MessagePack type {kind:#x}")


def is_silent(server, seconds):
    source = server.client if server.stream else server.socket
    return not select.select([source], [], [], seconds)[0]
