"""Clients of a container's name server, and name servers that tests make."""

import re
import socket
import struct
import subprocess
import sys
import threading

A, PTR, TXT, AAAA, HTTPS = 1, 12, 16, 28, 65


def make_network(api, name, **config):
    return api.ok("POST", "/networks/create", body={"Name": name, **config}).json()["Id"]


def sleeper(api, name, network, **options):
    endpoint = options.pop("endpoint", {})
    return api.run(["sleep", "1000"], name=name, Hostname=options.pop("Hostname", ""),
                   host={"NetworkMode": network, **options.pop("host", {})},
                   NetworkingConfig={"EndpointsConfig": {network: endpoint}}, **options)


def address(api, container, network):
    return api.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]


_ASK = """
import socket, struct, sys
def ask(name, kind, tcp):
    packet = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0)
    packet += b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0" + struct.pack("!2H", kind, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect(("127.0.0.11", 53))
    s.sendall((struct.pack("!H", len(packet)) if tcp else b"") + packet)
    reply = s.recv(65536)
    if tcp:
        while len(reply) < 2 or len(reply) < 2 + struct.unpack("!H", reply[:2])[0]:
            reply += s.recv(65536)
        reply = reply[2:]
    s.close()
    code, count, at, out = reply[3] & 15, struct.unpack("!H", reply[6:8])[0], len(packet), []
    for _ in range(count):
        while reply[at] and reply[at] < 192: at += 1 + reply[at]
        at += 1 if reply[at] == 0 else 2
        length = struct.unpack("!H", reply[at + 8:at + 10])[0]
        data = reply[at + 10:at + 10 + length]
        if kind == 1: out.append(socket.inet_ntop(socket.AF_INET, data))
        elif kind == 28: out.append(socket.inet_ntop(socket.AF_INET6, data))
        else:
            labels = []
            while data and data[0]:
                labels.append(data[1:1 + data[0]].decode()); data = data[1 + data[0]:]
            out.append(".".join(labels))
        at += 10 + length
    return code, out
for line in sys.stdin:
    name, kind, tcp = line.split()
    try:
        print(*ask(name, int(kind), tcp == "1"), flush=True)
    except TimeoutError:
        print(2, [], flush=True)  # dockerd 20.10 says nothing where nobody can be asked
"""


class Inside:
    """A client in a container's network namespace."""

    def __init__(self, api, container):
        self.pid = str(api.state(container)["Pid"])
        self.process = subprocess.Popen(["nsenter", "-t", self.pid, "-n", sys.executable, "-c", _ASK],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, name, kind=A, tcp=False):
        """(response code, answers)"""
        self.process.stdin.write(f"{name} {kind} {int(tcp)}\n")
        self.process.stdin.flush()
        code, answers = self.process.stdout.readline().split(" ", 1)
        return int(code), re.findall(r"'([^']*)'", answers)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Upstream(threading.Thread):
    """A name server on the host, which answers every question in one way."""

    def __init__(self, ip, answer=None, code=0):
        super().__init__(daemon=True)
        self.answer, self.code, self.asked = answer, code, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: a flood of questions is not lost
        self.socket.bind((ip, 53))
        self.start()

    def run(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            if not query:
                return
            self.asked.append(query)
            reply = query[:2] + bytes([0x81, 0x80 | self.code]) + query[4:6] + struct.pack("!3H", bool(self.answer), 0, 0)
            reply += query[12:]
            if self.answer:
                reply += struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(self.answer)
            self.socket.sendto(reply, peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.socket.getsockname())
        self.join()
        self.socket.close()
