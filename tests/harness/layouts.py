"""OCI layouts with several platforms and attestations, as archives and as a registry holds them."""

import gzip
import hashlib
import json

from . import images

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PROVENANCE, SBOM = "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"
HOST = images._architecture()


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An index over images for `platforms` ("arm64" or "arm/v7"), each with its attestations if `attested`."""

    def __init__(self, platforms=(HOST,), attested=False, files=None):
        self.blobs, self.platforms, self.attestations = {}, {}, {}
        entries = []
        for name in platforms:
            files_of = {"etc/platform": name.encode(), **(files or {})}
            entries.append(self._image(name, files_of))
        if attested:
            entries += [self._attestation(each["digest"]) for each in list(entries)]
        self.index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        self.root = self._json(INDEX, self.index)
        self.digest = self.root["digest"]

    def _blob(self, media_type, data, **more):
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def _json(self, media_type, document, **more):
        return self._blob(media_type, json.dumps(document).encode(), **more)

    def _image(self, name, files):
        architecture, _, variant = name.partition("/")
        platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}
        tar = images.layer(files)
        layer = self._blob(LAYER, gzip.compress(tar, 1, mtime=0))
        config = self._json(CONFIG, {**platform, "config": {"Cmd": ["sh"]}, "created": "2023-01-01T00:00:00Z",
                                     "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]}})
        entry = self._json(MANIFEST, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]},
                           platform=platform)
        self.platforms[name] = entry["digest"]
        return entry

    def _attestation(self, subject):
        layers = [self._blob("application/vnd.in-toto+json", json.dumps(
            {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "subject": [{"name": subject}]}).encode(),
            annotations={"in-toto.io/predicate-type": kind}) for kind in (PROVENANCE, SBOM)]
        config = self._json(CONFIG, {"architecture": "unknown", "os": "unknown", "config": {},
                                     "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in layers]}})
        entry = self._json(MANIFEST, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers},
                           platform={"os": "unknown", "architecture": "unknown"},
                           annotations={"vnd.docker.reference.type": "attestation-manifest",
                                        "vnd.docker.reference.digest": subject})
        self.attestations[subject] = entry["digest"]
        return entry

    def archive(self, name):
        """What `docker save` of a store with indexes writes."""
        root = {**self.root, "annotations": {"io.containerd.image.name": f"docker.io/library/{name}",
                                             "org.opencontainers.image.ref.name": name.split(":")[1]}}
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
                 "index.json": json.dumps({"schemaVersion": 2, "manifests": [root]}).encode(),
                 **{"blobs/sha256/" + digest[7:]: data for digest, data in self.blobs.items()}}
        return images.layer(files)

    def serve(self, registry, repository, tag):
        """Puts it into a FakeRegistry."""
        registry.blobs.update(self.blobs)
        registry.manifests[repository, tag] = registry.manifests[repository, self.digest] = (INDEX, self.blobs[self.digest])
        for entry in self.index["manifests"]:
            registry.manifests[repository, entry["digest"]] = (MANIFEST, self.blobs[entry["digest"]])
        return self
