"""A neighbour host on a wire of its own, and who reaches whom: servers and clients inside network namespaces."""

import json
import os
import subprocess
import sys

HOST, HOST_SECOND, HOST6 = "10.200.0.1", "10.200.0.9", "fd0f::1"
NEIGHBOUR, NEIGHBOUR6 = "10.200.0.2", "fd0f::2"


def ip(*args, namespace=None):
    command = ["ip", *(["-n", namespace] if namespace else []), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Neighbour:
    """A machine that shares a wire with this host: it sends everything to it, packets for 127.0.0.0/8 included."""

    name = "neighbour"

    def __init__(self):
        ip("netns", "add", self.name)
        ip("link", "add", "wire0", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        for address in (f"{HOST}/24", f"{HOST_SECOND}/24"):
            ip("addr", "add", address, "dev", "wire0")
        ip("addr", "add", f"{HOST6}/64", "dev", "wire0", "nodad")
        ip("link", "set", "wire0", "up")
        ip("addr", "add", f"{NEIGHBOUR}/24", "dev", "eth0", namespace=self.name)
        ip("addr", "add", f"{NEIGHBOUR6}/64", "dev", "eth0", "nodad", namespace=self.name)
        ip("link", "set", "eth0", "up", namespace=self.name)
        ip("route", "add", "default", "via", HOST, namespace=self.name)
        ip("-6", "route", "add", "default", "via", HOST6, namespace=self.name)
        # What an attacker on the wire would do (CVE-2020-8558); its own loopback interface stays down.
        self.sysctl("net.ipv4.conf.all.route_localnet=1")
        ip("route", "add", "127.0.0.0/8", "via", HOST, namespace=self.name)

    def sysctl(self, setting):
        subprocess.run(["ip", "netns", "exec", self.name, "sysctl", "-qw", setting], check=True)

    def enter(self):
        return ["ip", "netns", "exec", self.name]

    def remove(self):
        subprocess.run(["ip", "link", "del", "wire0"], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


def enter_container(api, container):
    return ["nsenter", "-t", str(api.state(container)["Pid"]), "-n"]


_SERVE = """
import selectors, socket, sys
poll = selectors.DefaultSelector()
def name(peer): return peer[0].split('%')[0].removeprefix('::ffff:').encode()
for kind, ports in ((socket.SOCK_STREAM, (80, 81, 82)), (socket.SOCK_DGRAM, (80, 81))):
    for port in ports:
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('::', port))
        if kind == socket.SOCK_STREAM: s.listen(64)
        poll.register(s, selectors.EVENT_READ, kind)
print('up', flush=True)
while True:
    for key, _ in poll.select():
        s = key.fileobj
        if key.data == socket.SOCK_STREAM:
            c, peer = s.accept()
            c.sendall(name(peer)); c.close()
        else:
            _, peer = s.recvfrom(100)
            s.sendto(name(peer), peer)
"""

_ASK = """
import json, socket, sys, threading
def ask(proto, host, port, wait):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM if proto == 'udp' else socket.SOCK_STREAM)
    s.settimeout(wait)
    try:
        s.connect((host, port))
        if proto == 'tcp': return s.recv(100).decode() or None
        for _ in range(int(wait) + 1):
            s.settimeout(min(wait, 1))
            s.send(b'x')
            try: return s.recv(100).decode() or None
            except TimeoutError: pass
    except OSError:
        return None
    finally:
        s.close()
for line in sys.stdin:
    questions = json.loads(line)
    answers = [None] * len(questions)
    def one(n): answers[n] = ask(*questions[n])
    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(questions))]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(json.dumps(answers), flush=True)
"""


class Server:
    """Tells whoever connects to TCP 80 to 82 or writes to UDP 80 or 81 the address it comes from."""

    def __init__(self, enter=()):
        self.process = subprocess.Popen([*enter, sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "up\n"

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Client:
    """Asks many servers at a time from one place."""

    def __init__(self, enter=()):
        self.process = subprocess.Popen([*enter, sys.executable, "-c", _ASK], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, questions, wait=3.2):  # a lost SYN comes again after one second, and after three
        """questions: (proto, host, port); the answers are how the server sees us, or None."""
        self.process.stdin.write(json.dumps([[*question, wait] for question in questions]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def has_ipv6():
    return os.path.exists("/proc/sys/net/ipv6")
