"""What COPY, ADD and WORKDIR do to a tree. With docker buildx, whose tar output shows owners, modes and links."""

import io
import os
import subprocess
import tarfile

import pytest

from harness import clients

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 lacks half of what this client asks for


class Trees:
    """Builds Dockerfiles and shows the trees that they make."""

    def __init__(self, engine, directory):
        self.directory = directory
        self.env = {**engine.client_env(), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        self.root = directory / "context"
        self.root.mkdir()

    def client(self, *args, code=0):
        result = subprocess.run([str(clients.buildx()), *map(str, args)], env=self.env, capture_output=True, timeout=200,
                                cwd=self.directory)
        errors = result.stderr.decode(errors="replace")
        assert code is None or result.returncode == code, f"{args}: {result.returncode}\n{errors}"
        return result.stdout, errors

    def put(self, files):
        """path -> text, bytes, None (a directory) or ("link", target)"""
        for path, content in files.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                place.mkdir(exist_ok=True)
            elif isinstance(content, tuple):
                os.symlink(content[1], place)
            else:
                place.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def build(self, dockerfile, *args):
        """path -> "mode uid:gid content", "l -> target" or, for directories, "mode uid:gid"."""
        self.put({"Dockerfile": dockerfile})
        out, errors = self.client("build", "--progress=plain", "--output=type=tar,dest=-", *args, self.root)
        shown = {}
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            for entry in archive:
                name = entry.name.strip("/")
                if entry.issym():
                    shown[name] = f"l -> {entry.linkname}"
                elif entry.isdir():
                    shown[name] = f"{entry.mode & 0o7777:04o} {entry.uid}:{entry.gid}"
                elif entry.isfile():
                    text = archive.extractfile(entry).read().decode(errors="replace")
                    shown[name] = f"{entry.mode & 0o7777:04o} {entry.uid}:{entry.gid} {text}"
                else:
                    shown[name] = f"{entry.type} {entry.linkname}"
        return shown

    def refused(self, dockerfile, *args):
        self.put({"Dockerfile": dockerfile})
        return self.client("build", "--progress=plain", "--output=type=tar,dest=/dev/null", *args, self.root, code=1)[1]


@pytest.fixture
def trees(engine, clean, scratch):
    return Trees(engine, scratch)


def tar_of(files):
    """An archive of name -> text, or ("link", target); owner 7:8."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mode = 7, 8, 0o640
            if isinstance(content, tuple):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[1]
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()


def test_files_and_directories_go_where_they_are_said_to(trees):
    trees.put({"foo": "f", "dir/a": "a", "dir/sub/b": "b"})
    made = trees.build("FROM scratch\nCOPY foo /foo2\nCOPY foo /\nCOPY foo /x/y/\nCOPY dir /d\nCOPY foo dir /both/\n"
                       "WORKDIR /test1\nWORKDIR test2\nCOPY foo ../\nADD foo ./bar/baz\nCOPY . .\nENV e=\"\"\nCOPY foo $e\n")
    for path, text in {"foo2": "f", "foo": "f", "x/y/foo": "f", "d/a": "a", "d/sub/b": "b", "both/foo": "f", "both/a": "a",
                       "both/sub/b": "b", "test1/foo": "f", "test1/test2/bar/baz": "f", "test1/test2/dir/sub/b": "b",
                       "test1/test2/foo": "f"}.items():
        assert made[path].endswith(f"0:0 {text}"), (path, made.get(path))
    assert made["x/y"] == "0755 0:0" and made["test1/test2"] == "0755 0:0"


def test_owners_are_numbers_or_names_of_the_tree(trees):
    trees.put({"passwd": "root:x:0:0::/:\nuser:x:1000:1001::/:\n", "group": "root:x:0:\nstaff:x:50:\n", "foo": "f", "d/x": "x"})
    made = trees.build("FROM scratch\nCOPY passwd group /etc/\nARG owner=user group=staff\n"
                       "COPY --chown=${owner}:${group} foo /named\nCOPY --chown=user foo /primary\nCOPY --chown=7 foo /seven\n"
                       "COPY --chown=7:8 d /new/dir\nCOPY --chown=nobody-here foo /unknown\n")
    assert made["named"] == "0644 1000:50 f" and made["primary"] == "0644 1000:1001 f" and made["seven"] == "0644 7:7 f"
    assert made["new"] == "0755 7:8" and made["new/dir"] == "0755 7:8" and made["new/dir/x"] == "0644 7:8 x"
    assert made["unknown"] == "0644 0:0 f"


def test_owners_of_existing_directories(trees):
    trees.put({"a/b/c": "c"})
    made = trees.build("FROM scratch AS base\nCOPY --chown=500:600 a /src/a\n"
                       "FROM scratch\nCOPY --chown=1:2 --from=base /src/a/b/c /dest/b/c\nCOPY --from=base /src/a /dest\n"
                       "COPY --from=base /src/a /fresh\n")
    assert made["dest"] == "0755 1:2" and made["dest/b"] == "0755 500:600" and made["dest/b/c"] == "0644 500:600 c"
    assert made["fresh"] == "0755 0:0" and made["fresh/b"] == "0755 500:600"


@pytest.mark.parametrize("mode, made_mode", [("0644", "0644"), ("777", "0777"), ("0", "0000"), ("4755", "4755")])
def test_modes_in_octal(trees, mode, made_mode):
    trees.put({"foo": "f"})
    made = trees.build(f"FROM scratch\nCOPY --chmod={mode} foo /\n")
    assert made["foo"] == f"{made_mode} 0:0 f"


def test_modes_reach_the_directories_that_are_made(trees):
    trees.put({"foo": "f"})
    made = trees.build("FROM scratch\nARG mode=777\nCOPY --chmod=${mode} foo /parent/foo\n")
    assert made["parent"] == "0777 0:0" and made["parent/foo"] == "0777 0:0 f"


@pytest.mark.parametrize("change, file, program, directory", [
    ("u=rwX,go=rX", "0644", "0755", "0755"), ("a+X", "0640", "0751", "0711"), ("go-r", "0600", "0710", "0700"),
    ("g=u,o=", "0660", "0770", "0770"), ("u+s", "4640", "4750", "4700")])
def test_modes_in_words(trees, change, file, program, directory):
    trees.put({"d/file": "", "d/program": "", "d/sub": None})
    for name, mode in (("d/file", 0o640), ("d/program", 0o750), ("d/sub", 0o700)):
        (trees.root / name).chmod(mode)
    made = trees.build(f"FROM scratch\nCOPY --chmod={change} d /\n")
    assert (made["file"], made["program"], made["sub"]) == (f"{file} 0:0 ", f"{program} 0:0 ", f"{directory} 0:0")


@pytest.mark.parametrize("mode", ["64a", "10000"])
def test_wrong_modes(trees, mode):
    trees.put({"foo": "f"})
    assert f"invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777" in trees.refused(
        f"FROM scratch\nCOPY --chmod={mode} foo /\n")


def test_wildcards(trees):
    trees.put({"a1": "1", "a2": "2", "b1": "3", "d1/in": "4", "d2/in": "5", "[x]": "6"})
    made = trees.build("FROM scratch\nCOPY a* /a/\nCOPY ?2 /q/\nCOPY d* /d/\nCOPY a1 nomatch* /n/\nCOPY d[2-3]/* /c/\nCOPY [[]x* /e/\n")
    assert sorted(path for path in made if "/" in path) == ["a/a1", "a/a2", "c/in", "d/in", "e/[x]", "n/a1", "q/a2", "q/in"]
    assert made["d/in"].endswith(" 5")


def test_a_missing_file(trees):
    trees.put({"foo": ""})
    assert '"/nope": not found' in trees.refused("FROM scratch\nCOPY nope /\n")
    assert '"/nope": not found' in trees.refused("FROM scratch AS a\nCOPY foo /\nFROM scratch\nCOPY --from=a /nope /\n")


def test_what_is_in_the_way(trees):
    trees.put({"foo": "new", "dir/x": "x", "file/dir/in": ""})
    made = trees.build("FROM busybox AS base\nRUN echo old > /f; ln /f /h; ln -s f /l\nFROM base\nCOPY foo /h\n")
    assert made["f"].endswith(" old\n") and made["h"].endswith(" new")
    made = trees.build("FROM base\nCOPY foo /l\n".replace("FROM base", "FROM busybox\nRUN echo old > /f; ln /f /h; ln -s f /l"))
    assert made["f"].endswith(" new") and made["h"].endswith(" old\n") and made["l"] == "l -> f"
    assert "cannot copy to non-directory: /f/dir" in trees.refused(
        "FROM busybox\nRUN mkdir /f && touch /f/dir\nCOPY file /f\n")
    assert "cannot replace to directory /x/foo with file" in trees.refused(
        "FROM busybox\nRUN mkdir -p /x/foo\nCOPY foo /x/\n")


def test_links_of_the_source(trees):
    trees.put({"bar/baz": "b", "bar/inner": ("link", "baz"), "foo": ("link", "bar"), "sub/l1": ("link", "../bar/baz"),
               "sub/l2": ("link", "l1"), "chain": ("link", "foo/inner")})
    made = trees.build("FROM scratch\nCOPY foo /all/\nCOPY sub/l* /links/\nCOPY chain /c\nCOPY foo/baz /t\n")
    assert made["all/baz"].endswith(" b") and made["all/inner"] == "l -> baz"
    assert made["links/l1"].endswith(" b") and made["links/l2"].endswith(" b")
    assert made["c"].endswith(" b") and made["t"].endswith(" b")


def test_links_of_another_stage_stay_inside_of_it(trees):
    trees.put({"foo": "f"})
    made = trees.build("FROM busybox AS base\nRUN mkdir /real && echo inside > /real/f && ln -s /real /out && ln -s ../../../real /up\n"
                       "FROM scratch\nCOPY --from=base /out/f /a\nCOPY --from=base /up/f /b\nCOPY --from=base /out /c\n")
    assert [made[name].split(" ", 2)[2] for name in ("a", "b", "c/f")] == ["inside\n"] * 3


def test_links_of_the_destination_stay_inside(trees):
    trees.put({"foo": "f", "t.tar": tar_of({"symlink": ("link", "../tmp/target"), "absolute": ("link", "/etc")})})
    made = trees.build("FROM scratch\nADD t.tar /\nCOPY foo /symlink/\nCOPY foo /absolute/gantry-test-foo\n")
    assert made["tmp/target/foo"].endswith(" f") and made["etc/gantry-test-foo"].endswith(" f")
    assert made["symlink"] == "l -> ../tmp/target"
    assert not os.path.exists("/etc/gantry-test-foo")


def test_archives(trees):
    plain = tar_of({"in/deep/file": "content"})
    gzipped = subprocess.run(["gzip", "-c"], input=plain, capture_output=True, check=True).stdout
    xz = subprocess.run(["xz", "-c"], input=plain, capture_output=True, check=True).stdout
    trees.put({"plain": plain, "t.tgz": gzipped, "t.xz": xz, "no.tar": "not an archive", "empty.tar": ""})
    made = trees.build("FROM scratch\nADD plain /a/\nADD t.tgz /b\nADD t.xz /c/\nADD no.tar empty.tar /d/\nCOPY t.tgz /e\n"
                       "ADD --chown=100:200 plain /f/\nADD *.tar t.tgz /g/\nADD --unpack=false t.tgz /h/\n")
    for path in ("a", "b", "c", "g"):
        assert made[f"{path}/in/deep/file"] == "0640 7:8 content" and made[f"{path}/in/deep"] == "0755 0:0"
    assert made["d/no.tar"].endswith("not an archive") and made["d/empty.tar"] == "0644 0:0 "
    assert "e" in made and "e/in" not in made and "h/t.tgz" in made
    assert made["f/in/deep/file"] == "0640 100:200 content" and made["f"] == "0755 100:200"


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/../escape"])
def test_archives_that_want_out(trees, name):
    trees.put({"t.tar": tar_of({name: "x"})})
    assert trees.build("FROM scratch\nADD t.tar /d/\n") == {"d": "0755 0:0", "d/escape": "0640 7:8 x"}


def test_patterns_leave_out(trees):
    trees.put({"a.txt": "", "a.png": "", "dir/b.txt": "", "dir/b.png": "", "dir/c.jpeg": "", "dir2/c.jpeg": "", "dir2/d.txt": ""})
    made = trees.build("# syntax=docker/dockerfile:1-labs\nFROM scratch\nCOPY --exclude=*.png --exclude=dir2/*.jpeg . /a/\n"
                       "COPY --exclude=**/*.png --exclude=!dir/b.png . /b/\nCOPY --exclude=*.jpeg dir /c/\n")
    paths = sorted(path for path, look in made.items() if look.startswith("0644") and "Dockerfile" not in path)
    assert paths == ["a/a.txt", "a/dir/b.png", "a/dir/b.txt", "a/dir/c.jpeg", "a/dir2/d.txt",
                     "b/a.txt", "b/dir/b.png", "b/dir/b.txt", "b/dir/c.jpeg", "b/dir2/c.jpeg", "b/dir2/d.txt",
                     "c/b.png", "c/b.txt"]


def test_parents(trees):
    trees.put({"a/b/c": "1", "a/b2/d": "2", "x/y/z": "3"})
    (trees.root / "a/b").chmod(0o711)
    made = trees.build("# syntax=docker/dockerfile:1-labs\nFROM scratch\nCOPY --parents a/b/c /p/\nCOPY --parents ./a/./b*/* x/y /q/\n")
    paths = sorted(path for path, look in made.items() if look.startswith("0644"))
    assert paths == ["p/a/b/c", "q/b/c", "q/b2/d", "q/x/y/z"] and made["p/a/b"] == "0711 0:0"
    assert "not found" in trees.refused("# syntax=docker/dockerfile:1-labs\nFROM scratch\nCOPY --parents a/none/c /p/\n")


def test_ignored_files_are_not_copied(trees):
    trees.put({"bar": "1", "baz": "2", "bay": "3", "foo": "4", ".dockerignore": "ba*\n!bay\nDockerfile\n.dockerignore\n"})
    made = trees.build("FROM scratch\nCOPY . /\n")
    assert sorted(made) == ["bay", "foo"]


def test_directories_and_their_users(trees):
    trees.put({"passwd": "root:x:0:0::/:\nuser:x:1000:1001::/:\n", "group": "root:x:0:\n"})
    made = trees.build("FROM scratch\nCOPY passwd group /etc/\nCOPY --chown=3 passwd /kept/x\nUSER user\nWORKDIR /kept\nWORKDIR /mine/deep\n")
    assert made["kept"] == "0755 3:3" and made["mine"] == "0755 1000:1001" and made["mine/deep"] == "0755 1000:1001"


def test_names_and_inline_files(trees):
    trees.put({"äöü/☺": "smile", "with space": "s", "f%s": "p"})
    made = trees.build('FROM scratch\nCOPY äöü/☺ /u/\nCOPY ["with space", "f%s", "/s/"]\nARG v=value\n'
                       "COPY --chmod=0700 --chown=1:2 <<one <<\"two\" /h/\nx=$v\none\nx=$v\ntwo\n")
    assert made["u/☺"].endswith(" smile") and made["s/with space"].endswith(" s") and made["s/f%s"].endswith(" p")
    assert made["h/one"] == "0700 1:2 x=value\n" and made["h/two"] == "0700 1:2 x=$v\n"


def test_hard_links_and_times_are_kept(trees, engine):
    trees.put({"foo": "f"})
    os.utime(trees.root / "foo", (1_000_000_000, 1_000_000_000))
    trees.build("FROM busybox AS a\nCOPY foo /d/a\nRUN ln /d/a /d/b\nFROM busybox\nCOPY --from=a /d /d\nCOPY foo /t\n")
    trees.client("build", "--load", "-t", "made", trees.root)
    shown = engine.docker("run", "--rm", "made", "stat", "-c", "%i %h %Y", "/d/a", "/d/b", "/t", check=True).stdout.split("\n")
    assert shown[0].split()[:2] == shown[1].split()[:2] and shown[0].split()[1] == "2"
    assert shown[2].split()[2] == "1000000000"
