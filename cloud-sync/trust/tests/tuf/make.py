#!/usr/bin/env python3
"""Repositories for tests of the TUF client, good and hostile, made by python-tuf and not by our own code.

    python3 -m venv V && V/bin/pip install tuf==7.0.0 'securesystemslib[crypto]==1.4.0'
    V/bin/python make.py make     writes the folders beside this file anew; a diff then shows what has changed
    V/bin/python make.py check    lets python-tuf's own client read `ours`, which our editor made

A case is a folder. `case.json` says what happens, in order: each run of the client sees the files of its own folder over those of
the runs before, at a time of its own, and ends with "ok" or with a reason code; `kept` are the versions it holds afterwards.
`pad` makes a file longer than it is here, by so many bytes.

Keys are derived from words, so that the same files come out again. Only the case with RSA and ECDSA keys differs each time, and
is left alone when it is there.
"""

import copy
import hashlib
import json
import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import tuf
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

HERE = Path(__file__).parent
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=timezone.utc)
BUNDLE = "functions/water-loss/1.4.0/water-loss.holm"
CUSTOM = {"holm": {"kind": "bundle", "function": "water-loss", "version": "1.4.0", "sequence": 3, "permissions": []}}


def signer(word):
    """An Ed25519 key that is always the same for the same word."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word.encode()).digest())
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))


def days(count):
    return NOW + timedelta(days=count)


class Case:
    """A repository that changes, and what a client is to make of it."""

    def __init__(self, name, about, consistent=True, root_keys=3, root_threshold=2, targets_threshold=1):
        self.folder = HERE / name
        self.script = {"about": about, "made_by": f"python-tuf {tuf.__version__}", "runs": []}
        self.consistent = consistent
        self.files = {}
        self.signers = {
            "root": [signer(f"root {number}") for number in range(root_keys)],
            "timestamp": [signer("timestamp")],
            "snapshot": [signer("snapshot")],
            "targets": [signer(f"targets {number}") for number in range(targets_threshold)],
        }
        root = Root(expires=days(365), consistent_snapshot=consistent)
        for role, signers in self.signers.items():
            for one in signers:
                root.add_key(one.public_key, role)
        root.roles["root"].threshold = root_threshold
        root.roles["targets"].threshold = targets_threshold
        self.root = Metadata(root)
        self.targets = Metadata(Targets(expires=days(90)))
        self.snapshot = Metadata(Snapshot(expires=days(7)))
        self.timestamp = Metadata(Timestamp(expires=days(1)))
        self.target(BUNDLE, b"a bundle, as far as TUF is concerned\n", CUSTOM)
        self.sign("root")
        self.first_root = self.bytes("root")
        self.put_root()

    def md(self, role):
        return getattr(self, role)

    def bytes(self, role):
        # Compact, to be small; and not in canonical order, for nothing must depend on that.
        return self.md(role).to_bytes(JSONSerializer(compact=True))

    def sign(self, role, by=None):
        metadata = self.md(role)
        metadata.signatures.clear()
        for one in self.signers[role] if by is None else by:
            metadata.sign(one, append=True)

    def target(self, name, data, custom=None, stored=True):
        entry = TargetFile.from_data(name, data, ["sha256"])
        if custom:
            entry.unrecognized_fields["custom"] = custom
        self.targets.signed.targets[name] = entry
        if not stored:
            return
        folder, _, file = name.rpartition("/")
        prefix = f"{entry.hashes['sha256']}." if self.consistent else ""
        self.files[f"targets/{folder}/{prefix}{file}" if folder else f"targets/{prefix}{file}"] = data

    def put_root(self, version=None):
        self.files[f"{version or self.root.signed.version}.root.json"] = self.bytes("root")

    def put(self, role, version=None):
        prefix = f"{version or self.md(role).signed.version}." if self.consistent and role != "timestamp" else ""
        self.files[f"{prefix}{role}.json"] = self.bytes(role)

    def describe(self, role):
        data = self.bytes(role)
        return MetaFile(self.md(role).signed.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    def lead(self, *roles, bump=True):
        """Signs and puts these roles' files, each described in the next as it is."""
        for role in roles:
            metadata = self.md(role)
            if bump:
                metadata.signed.version += 1
            if role == "snapshot":
                metadata.signed.meta["targets.json"] = self.describe("targets")
            if role == "timestamp":
                metadata.signed.snapshot_meta = self.describe("snapshot")
            self.sign(role)
            self.put(role)
        return self

    def begin(self):
        """A first good state, and a client that has it."""
        self.lead("targets", "snapshot", "timestamp", bump=False)
        return self.run("ok", root=1, timestamp=1, snapshot=1, targets=1)

    def next_root(self, by=None):
        self.root.signed.version += 1
        self.sign("root", by)
        self.put_root()
        return self

    def rotate(self, role, word):
        """Takes a role's keys away and gives it a new one."""
        for key in list(self.root.signed.roles[role].keyids):
            self.root.signed.revoke_key(key, role)
        self.signers[role] = [signer(word)]
        self.root.signed.add_key(self.signers[role][0].public_key, role)

    def run(self, expect, now=NOW, pad=None, without=(), role=None, dropped=(), download=None, limits=None, **kept):
        number = len(self.script["runs"]) + 1
        folder = self.folder / str(number)
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        folder.mkdir(parents=True, exist_ok=True)
        self.files = {}
        run = {"now": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "expect": expect}
        for key, value in dict(role=role, pad=pad, without=list(without), limits=limits, download=download).items():
            if value:
                run[key] = value
        run["kept"] = kept
        self.script["runs"].append(run)
        return self

    def end(self):
        (self.folder / "root.json").write_bytes(self.first_root)
        (self.folder / "case.json").write_text(json.dumps(self.script, indent=1) + "\n")


def good():
    case = Case("good", "a repository that works: two roots, a target in a folder, one with odd letters, custom")
    case.target("plain.txt", b"plain")
    case.target("odd name é \" \\ \u2028.txt", b"odd", stored=False)
    case.begin()
    case.target("plain.txt", b"changed")
    case.next_root().lead("targets", "snapshot", "timestamp")
    case.run("ok", root=2, timestamp=2, snapshot=2, targets=2)
    case.run("ok", root=2, timestamp=2, snapshot=2, targets=2).end()

    case = Case("good-not-consistent", "without consistent snapshots: names without versions and digests", consistent=False)
    case.begin()
    case.target("unknown-hash", b"who knows")
    case.targets.signed.targets["unknown-hash"].hashes = {"future-hash": "00"}
    case.lead("targets", "snapshot", "timestamp")
    case.run("ok", download={"unknown-hash": "wrong-digest"}, root=1, timestamp=2, snapshot=2, targets=2).end()

    case = Case("good-bare", "timestamp and snapshot say nothing but versions, which is allowed")
    case.lead("targets", bump=False)
    case.snapshot.signed.meta["targets.json"] = MetaFile(1)
    case.sign("snapshot")
    case.put("snapshot")
    case.timestamp.signed.snapshot_meta = MetaFile(1)
    case.sign("timestamp")
    case.put("timestamp")
    case.run("ok", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("good-unknown-things", "fields, key types, delegations and hash functions that are not known here do no harm")
    root = case.root.signed
    root.unrecognized_fields["holm-future"] = {"a": [1, None, True, "x"]}
    root.roles["timestamp"].unrecognized_fields["note"] = "n"
    odd = {"keytype": "ml-dsa", "scheme": "ml-dsa-87", "keyval": {"public": "??", "more": 1}}
    odd_id = hashlib.sha256(encode_canonical(odd).encode()).hexdigest()
    root.keys[odd_id] = SSlibKey(odd_id, "ml-dsa", "ml-dsa-87", odd["keyval"])
    root.roles["timestamp"].keyids.append(odd_id)
    named = copy.deepcopy(case.signers["snapshot"][0].public_key)
    case.targets.signed.unrecognized_fields["future"] = "f"
    case.targets.signed.delegations = Delegations(
        {named.keyid: named}, {"d": DelegatedRole("d", [named.keyid], 1, False, ["d/*"])}
    )
    case.targets.signed.targets[BUNDLE].hashes["future-hash"] = "00"
    case.snapshot.signed.meta["d.json"] = MetaFile(7)
    case.sign("root")
    case.first_root = case.bytes("root")
    case.put_root()
    case.begin().end()

    folder = HERE / "good-three-kinds-of-keys"
    if not folder.exists():
        case = Case(folder.name, "root with an Ed25519, an ECDSA and an RSA key, all three needed", root_keys=1, root_threshold=1)
        case.signers["root"] += [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_rsa(size=2048)]
        for one in case.signers["root"][1:]:
            case.root.signed.add_key(one.public_key, "root")
        case.root.signed.roles["root"].threshold = 3
        case.sign("root")
        case.first_root = case.bytes("root")
        case.put_root()
        case.begin()
        case.next_root(by=case.signers["root"][:2])
        case.run("too-few-signatures", role="root", root=1, timestamp=1, snapshot=1, targets=1).end()


def signatures():
    order = ["timestamp", "snapshot", "targets"]
    for role in ["root", *order]:
        case = Case(f"wrong-signature-{role}", f"the {role} file was changed after it was signed").begin()
        case.next_root().lead("targets", "snapshot", "timestamp")
        names = {"root": "2.root.json", "timestamp": "timestamp.json"}
        name = names.get(role, f"2.{role}.json")
        if role == "targets":
            # Described as changed, so that nothing but the signature is wrong.
            case.targets.signed.unrecognized_fields["evil"] = True
            case.put("targets")
            case.snapshot.signed.meta["targets.json"] = case.describe("targets")
            case.sign("snapshot")
            case.put("snapshot")
            case.timestamp.signed.snapshot_meta = case.describe("snapshot")
            case.sign("timestamp")
            case.put("timestamp")
        elif role == "snapshot":
            case.snapshot.signed.unrecognized_fields["evil"] = True
            case.put("snapshot")
            case.timestamp.signed.snapshot_meta = case.describe("snapshot")
            case.sign("timestamp")
            case.put("timestamp")
        else:
            case.md(role).signed.unrecognized_fields["evil"] = True
            case.files[name] = case.bytes(role)
        kept = dict(root=2, timestamp=2, snapshot=2, targets=2)
        for later in ["root", *order][["root", *order].index(role):]:
            kept[later] = 1
        case.run("wrong-signature", role=role, **kept).end()

    case = Case("unknown-key", "a timestamp by a key that no root names").begin()
    case.signers["timestamp"] = [signer("stranger")]
    case.lead("timestamp").run("unknown-key", role="timestamp", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("another-roles-key", "targets by the timestamp's key, which the root names, for something else").begin()
    case.signers["targets"] = case.signers["timestamp"]
    case.lead("targets", "snapshot", "timestamp")
    case.run("unknown-key", role="targets", root=1, timestamp=2, snapshot=2, targets=1).end()

    case = Case("too-few-root", "root 2 by one of the two who must sign").begin()
    case.next_root(by=case.signers["root"][:1])
    case.run("too-few-signatures", role="root", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("too-few-targets", "targets by one of the two who must sign", targets_threshold=2).begin()
    case.targets.signed.version += 1
    case.sign("targets", by=case.signers["targets"][:1])
    case.put("targets")
    case.lead("snapshot", "timestamp")
    case.run("too-few-signatures", role="targets", root=1, timestamp=2, snapshot=2, targets=1).end()

    case = Case("one-key-two-names", "one targets key under two key ids, both signing, where two keys must sign")
    first = case.signers["targets"][0]
    twin = SSlibKey.from_dict("", copy.deepcopy(first.public_key.to_dict()))
    twin.unrecognized_fields["name"] = "another"
    twin.keyid = hashlib.sha256(encode_canonical(twin.to_dict()).encode()).hexdigest()
    second = CryptoSigner(first._private_key, twin)
    case.root.signed.add_key(twin, "targets")
    case.root.signed.roles["targets"].threshold = 2
    case.signers["targets"].append(second)
    case.sign("root")
    case.first_root = case.bytes("root")
    case.put_root()
    case.lead("targets", "snapshot", "timestamp", bump=False)
    case.run("too-few-signatures", role="targets", root=1, timestamp=1, snapshot=1, targets=None).end()

    case = Case("one-signature-twice", "the same signature of one key twice, where two keys must sign", targets_threshold=2)
    case.begin()
    case.targets.signed.version += 1
    case.sign("targets", by=case.signers["targets"][:1])
    twice = json.loads(case.bytes("targets"))
    twice["signatures"] *= 2
    data = json.dumps(twice).encode()
    case.files["2.targets.json"] = data
    case.snapshot.signed.version += 1
    case.snapshot.signed.meta["targets.json"] = MetaFile(2)
    case.sign("snapshot")
    case.put("snapshot")
    case.lead("timestamp")
    case.run("malformed-metadata", role="targets", root=1, timestamp=2, snapshot=2, targets=1).end()


def expiry():
    case = Case("expired-root", "the newest root has expired").begin()
    case.root.signed.expires = days(-1)
    case.next_root().lead("targets", "snapshot", "timestamp")
    case.run("metadata-expired", role="root", root=2, timestamp=1, snapshot=1, targets=1).end()

    for role, kept in [
        ("timestamp", dict(timestamp=1, snapshot=1, targets=1)),
        ("snapshot", dict(timestamp=2, snapshot=1, targets=1)),
        ("targets", dict(timestamp=2, snapshot=2, targets=1)),
    ]:
        case = Case(f"expired-{role}", f"the new {role} file has expired").begin()
        case.md(role).signed.expires = days(-1)
        case.lead("targets", "snapshot", "timestamp")
        case.run("metadata-expired", role=role, root=1, **kept).end()

    case = Case("freeze", "the same good files for ever: after a day nothing is believed to be new, and a fresh timestamp ends it")
    case.begin()
    same = dict(root=1, timestamp=1, snapshot=1, targets=1)
    case.run("metadata-expired", now=days(1), role="timestamp", **same)
    case.timestamp.signed.expires = days(3)
    case.lead("timestamp").run("ok", now=days(2), **{**same, "timestamp": 2}).end()

    case = Case("expired-in-between", "an old root that has expired does not matter when a newer one has not")
    case.root.signed.expires = days(-30)
    case.sign("root")
    case.first_root = case.bytes("root")
    case.put_root()
    case.root.signed.expires = days(-20)
    case.next_root()
    case.root.signed.expires = days(20)
    case.next_root().lead("targets", "snapshot", "timestamp", bump=False)
    case.run("ok", root=3, timestamp=1, snapshot=1, targets=1).end()


def rollback():
    same = dict(root=1, timestamp=2, snapshot=2, targets=2)

    def ahead(name, about):
        case = Case(name, about).begin()
        return case.lead("targets", "snapshot", "timestamp").run("ok", **same)

    case = ahead("older-timestamp", "the timestamp of before")
    case.timestamp.signed.version = 1
    case.lead("timestamp", bump=False).run("older-metadata", role="timestamp", **same).end()

    case = ahead("older-snapshot", "a new timestamp that leads to the snapshot of before")
    case.snapshot.signed.version = 1
    case.lead("snapshot", bump=False).lead("timestamp")
    case.run("older-metadata", role="timestamp", **same).end()

    case = ahead("older-targets", "a new snapshot that leads to the targets of before")
    case.targets.signed.version = 1
    case.lead("targets", bump=False).lead("snapshot", "timestamp")
    case.run("older-metadata", role="snapshot", **{**same, "timestamp": 3}).end()

    case = Case("targets-gone", "a new snapshot that does not speak of a role any more")
    case.snapshot.signed.meta["extra.json"] = MetaFile(4)
    case.begin()
    del case.snapshot.signed.meta["extra.json"]
    case.lead("snapshot", "timestamp")
    case.run("older-metadata", role="snapshot", root=1, timestamp=2, snapshot=1, targets=1).end()

    case = Case("older-root", "root 1 again where root 2 is asked for")
    old = case.bytes("root")
    case.begin()
    case.files["2.root.json"] = old
    case.run("older-metadata", role="root", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("same-version-other-content", "a timestamp that changed without a new version is passed over").begin()
    case.timestamp.signed.snapshot_meta.version = 100
    case.sign("timestamp")
    case.put("timestamp")
    case.run("ok", root=1, timestamp=1, snapshot=1, targets=1).end()


def mixed():
    for name, about, change in [
        ("hash", "its digest in the timestamp is another's", lambda meta: meta.hashes.update(sha256="0" * 64)),
        ("length", "its length in the timestamp is another's", lambda meta: setattr(meta, "length", meta.length + 1)),
        ("version", "its version is not the one that the timestamp says", None),
    ]:
        case = Case(f"mixed-snapshot-{name}", f"a snapshot that does not belong to the timestamp: {about}").begin()
        case.lead("targets", "snapshot", "timestamp")
        if change:
            change(case.timestamp.signed.snapshot_meta)
        else:
            case.files["9.snapshot.json"] = case.bytes("snapshot")
            case.timestamp.signed.snapshot_meta.version = 9
        case.sign("timestamp")
        case.put("timestamp")
        case.run("mixed-metadata", role="snapshot", root=1, timestamp=2, snapshot=1, targets=1).end()

        case = Case(f"mixed-targets-{name}", f"targets that do not belong to the snapshot: {about}".replace("timestamp", "snapshot"))
        case.begin().lead("targets", "snapshot")
        meta = case.snapshot.signed.meta["targets.json"]
        if change:
            change(meta)
        else:
            case.files["9.targets.json"] = case.bytes("targets")
            meta.version = 9
        case.sign("snapshot")
        case.put("snapshot")
        case.lead("timestamp")
        case.run("mixed-metadata", role="targets", root=1, timestamp=2, snapshot=2, targets=1).end()

    case = Case("old-files-beside", "a mirror with the new timestamp and the old files under the new names").begin()
    old = case.bytes("targets")
    case.lead("targets", "snapshot", "timestamp")
    case.files["2.targets.json"] = old
    case.run("mixed-metadata", role="targets", root=1, timestamp=2, snapshot=2, targets=1).end()

    case = Case("missing-snapshot", "the snapshot that the timestamp leads to is not there; then it is").begin()
    case.lead("targets", "snapshot", "timestamp")
    case.run("download-failed", without=["2.snapshot.json"], role="snapshot", root=1, timestamp=2, snapshot=1, targets=1)
    case.run("ok", root=1, timestamp=2, snapshot=2, targets=2).end()


def endless():
    for name, role, kept in [
        ("2.root.json", "root", dict(root=1, timestamp=1, snapshot=1, targets=1)),
        ("timestamp.json", "timestamp", dict(root=2, timestamp=1, snapshot=1, targets=1)),
        ("2.snapshot.json", "snapshot", dict(root=2, timestamp=2, snapshot=1, targets=1)),
        ("2.targets.json", "targets", dict(root=2, timestamp=2, snapshot=2, targets=1)),
    ]:
        case = Case(f"endless-{role}", f"spaces without end behind the {role} file, which do not change what is signed")
        case.begin().next_root().lead("targets", "snapshot", "timestamp")
        case.run("endless-data", pad={name: 4 << 20}, role=role, **kept).end()

    same = dict(root=1, timestamp=1, snapshot=1, targets=1)
    case = Case("wrong-target", "targets that are not what was signed: other bytes, cut, with more behind, not there")
    data = b"12345678"
    case.target("t", data)
    name = "targets/" + case.targets.signed.targets["t"].hashes["sha256"] + ".t"
    case.begin()
    case.files[name] = b"12345679"
    case.run("ok", download={"t": "wrong-digest"}, **same)
    case.files[name] = b"1234567"
    case.run("ok", download={"t": "wrong-digest"}, **same)
    case.files[name] = data
    case.run("ok", pad={name: 1 << 20}, download={"t": "endless-data"}, **same)
    case.run("ok", without=[name], download={"t": "download-failed"}, **same)
    case.run("ok", download={"t": "ok", "never-signed": "unknown-target"}, **same).end()


def rotation():
    case = Case("rotation", "all keys of all roles are replaced, step by step; a client that slept through it comes through").begin()
    old = case.signers["root"]
    case.rotate("root", "new root")
    case.root.signed.roles["root"].threshold = 1
    case.next_root(by=[*old[:2], *case.signers["root"]])
    for role in ["timestamp", "snapshot", "targets"]:
        case.rotate(role, f"new {role}")
        case.next_root()
    case.lead("targets", "snapshot", "timestamp").run("ok", root=5, timestamp=2, snapshot=2, targets=2).end()

    case = Case("rotation-in-steps", "a client that follows two roots a run gets there in two").begin()
    for _ in range(4):
        case.next_root()
    case.run("ok", limits={"rotations": 2}, root=3, timestamp=1, snapshot=1, targets=1)
    case.run("ok", limits={"rotations": 2}, root=5, timestamp=1, snapshot=1, targets=1).end()

    case = Case("rotation-by-new-keys-only", "a root that its own new keys have signed, and none of the old").begin()
    case.rotate("root", "usurper")
    case.root.signed.roles["root"].threshold = 1
    case.next_root().run("unknown-key", role="root", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("rotation-by-old-keys-only", "a root that the old keys have signed, and not its own new ones").begin()
    old = case.signers["root"]
    case.rotate("root", "never signs")
    case.root.signed.roles["root"].threshold = 1
    case.next_root(by=old).run("unknown-key", role="root", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("root-skipped", "root 3, properly signed, in the place of root 2").begin()
    case.root.signed.version = 2
    case.next_root()
    case.files["2.root.json"] = case.files.pop("3.root.json")
    case.run("mixed-metadata", role="root", root=1, timestamp=1, snapshot=1, targets=1).end()

    case = Case("revoked-timestamp-key", "after a rotation the old timestamp key counts no more").begin()
    old = case.signers["timestamp"]
    case.rotate("timestamp", "new timestamp")
    case.next_root()
    case.signers["timestamp"] = old
    case.lead("timestamp").run("unknown-key", role="timestamp", root=2, timestamp=None, snapshot=None, targets=1).end()

    for name, roles in [("timestamp", ["timestamp"]), ("snapshot", ["timestamp", "snapshot"]), ("targets", ["snapshot"])]:
        about = f"whoever had the online keys drove the {name} version up; new keys let it come down again"
        case = Case(f"fast-forward-{name}", about).begin()
        case.md(name).signed.version = 2**53
        order = ["targets", "snapshot", "timestamp"]
        case.lead(*order[order.index(name):])
        high = {role: case.md(role).signed.version for role in order}
        case.run("ok", root=1, **high)
        for role in roles:
            case.rotate(role, f"new {role}")
        case.next_root()
        case.md(name).signed.version = 1
        case.lead(*order[order.index(name):])
        low = {role: case.md(role).signed.version for role in order}
        case.run("ok", root=2, **low).end()

    case = Case("fast-forward-by-threshold", "the same, where the new root keeps the stolen timestamp key and asks for a second one")
    case.begin()
    case.snapshot.signed.version = 2**53
    case.lead("snapshot", "timestamp").run("ok", root=1, timestamp=2, snapshot=2**53 + 1, targets=1)
    case.signers["timestamp"].append(signer("second timestamp"))
    case.root.signed.add_key(case.signers["timestamp"][1].public_key, "timestamp")
    case.root.signed.roles["timestamp"].threshold = 2
    case.next_root()
    case.snapshot.signed.version = 1
    case.lead("snapshot", "timestamp").run("ok", root=2, timestamp=3, snapshot=2, targets=1).end()

    case = Case("fast-forward-stays", "without new keys the version stays up, and what is lower is refused").begin()
    case.timestamp.signed.version = 2**53
    case.lead("timestamp").run("ok", root=1, timestamp=2**53 + 1, snapshot=1, targets=1)
    case.timestamp.signed.version = 1
    case.lead("timestamp")
    case.run("older-metadata", role="timestamp", root=1, timestamp=2**53 + 1, snapshot=1, targets=1).end()


def nonsense():
    same = dict(root=1, timestamp=1, snapshot=1, targets=1)

    def forged(name, about, change, expect="malformed-metadata"):
        """A timestamp that python-tuf would not write, signed with the right key all the same."""
        case = Case(name, about).begin()
        case.lead("timestamp")
        file = json.loads(case.bytes("timestamp"))
        change(file["signed"])
        try:
            message = encode_canonical(file["signed"]).encode()
        except Exception:
            message = json.dumps(file["signed"]).encode()
        signature = case.signers["timestamp"][0].sign(message)
        file["signatures"] = [{"keyid": signature.keyid, "sig": signature.signature}]
        case.files["timestamp.json"] = json.dumps(file).encode()
        case.run(expect, role="timestamp", **same).end()

    forged("other-specification", "a file by version 2 of the specification",
           lambda signed: signed.update(spec_version="2.0.0"), "unsupported-format")
    forged("wrong-type", "a file that says it is a snapshot, where the timestamp should be",
           lambda signed: signed.update(_type="snapshot"))
    forged("version-0", "version 0", lambda signed: signed.update(version=0))
    forged("version-fraction", "a version with a fraction, which canonical JSON does not have",
           lambda signed: signed.update(version=2.5))
    forged("version-huge", "a version beyond 64 bits", lambda signed: signed.update(version=2**64))
    forged("date-with-fraction", "a date in a spelling that is not the specification's",
           lambda signed: signed.update(expires="2026-11-22T12:00:00.5Z"))
    forged("no-expiry", "a file that never expires", lambda signed: signed.pop("expires"))
    forged("no-snapshot", "a timestamp that leads to no snapshot", lambda signed: signed.update(meta={}))

    case = Case("not-json", "bytes that are nothing, half of a file, and far too deep").begin()
    case.files["timestamp.json"] = b"\xff\xfe"
    case.run("malformed-metadata", role="timestamp", **same)
    case.lead("timestamp")
    case.files["timestamp.json"] = case.files["timestamp.json"][:-20]
    case.run("malformed-metadata", role="timestamp", **same)
    case.files["timestamp.json"] = b'{"signed":' + b"[" * 8000
    case.run("malformed-metadata", role="timestamp", **same)
    case.files["timestamp.json"] = b""
    case.run("malformed-metadata", role="timestamp", **same).end()

    case = Case("wrong-key-id", "a root with a key under an id that is not its own").begin()
    key = case.signers["timestamp"][0].public_key
    case.root.signed.keys["ab" * 32] = SSlibKey("ab" * 32, key.keytype, key.scheme, key.keyval)
    case.root.signed.roles["timestamp"].keyids.append("ab" * 32)
    case.next_root().run("malformed-metadata", role="root", **same).end()

    case = Case("unreachable-threshold", "a root in which a role needs more keys than it has: believed, and nothing is by that role")
    case.begin()
    case.root.signed.roles["snapshot"].threshold = 6
    case.next_root().lead("snapshot", "timestamp")
    case.run("too-few-signatures", role="snapshot", root=2, timestamp=2, snapshot=None, targets=1).end()


def canonical():
    """Values, and what securesystemslib signs for them."""
    values = [
        None, True, False, 0, -5, 2**63, 2**64 - 1, -(2**63), "", "a", "\n\t\x00\x1f\x7f", "\u2028/\"\\", "e\u0301", "\u00e9",
        "\U0001f600", [], {}, [1, [2, [3]]], {"b": 1, "a": {"z": [], "y": None}}, {"a": 1, "a b": 2, "a!": 3, "a\"": 4, "A": 5},
        {"\u00e9": 1, "e\u0301": 2, "z": 3}, {"\U0001f600": 1, "\uffff": 2}, {"": {"": {"": ""}}},
    ]
    lines = [[json.dumps(value), encode_canonical(value).encode().hex()] for value in values]
    (HERE / "canonical.json").write_text(json.dumps(lines, indent=1) + "\n")


def make():
    for folder in HERE.iterdir():
        if (folder / "case.json").exists() and folder.name != "good-three-kinds-of-keys":
            shutil.rmtree(folder)
    for part in [good, signatures, expiry, rollback, mixed, endless, rotation, nonsense, canonical]:
        part()


def check():
    """python-tuf's client, with our editor's repository."""
    import tempfile
    from unittest import mock

    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface, Updater

    ours = HERE / "ours"
    story = json.loads((ours / "story.json").read_text())

    class Files(FetcherInterface):
        def _fetch(self, url):
            path = ours / state / url.removeprefix("http://ours/")
            if not path.exists():
                raise DownloadHTTPError(f"no {path}", 404)
            yield path.read_bytes()

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ours / "1.root.json", Path(folder) / "root.json")
        for step in story:
            state = step["folder"]
            now = datetime.strptime(step["now"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            with mock.patch("tuf.ngclient._internal.trusted_metadata_set.datetime") as clock:
                clock.datetime.now.return_value = now
                clock.timezone = timezone
                updater = Updater(folder, "http://ours/", folder, "http://ours/targets/", fetcher=Files(), bootstrap=None)
                updater.refresh()
                for name, expected in step["targets"].items():
                    info = updater.get_targetinfo(name)
                    assert info.unrecognized_fields.get("custom") == expected["custom"], name
                    assert info.hashes["sha256"] == expected["sha256"]
                    updater.download_target(info, f"{folder}/target")
            versions = {role: Metadata.from_file(f"{folder}/{role}.json").signed.version for role in step["kept"]}
            assert versions == step["kept"], (state, versions)
            print(f"python-tuf {tuf.__version__} reads ours/{state}: {versions}")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]]()
