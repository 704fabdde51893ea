"""Whatever is read, the answer is objects or faults: no traceback, no memory without bounds.

`KUBENET_FUZZ=100000 pytest tests/kubenet_lab/manifests/test_bad_input.py` tries that many mutated documents.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import random
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from kubenet_lab import admission
from kubenet_lab.control import DUAL_STACK
from kubenet_lab.control.slices import slices_of
from kubenet_lab.errors import InputError, Invalid
from kubenet_lab.manifests import check, dump, load, placed, read
from kubenet_lab.objects import Namespace, ObjectMeta, Secret
from kubenet_lab.store import Store
from tests.oracles import open_case

ROOT = Path(__file__).parents[3]
FUZZ = int(os.environ.get("KUBENET_FUZZ", "400"))

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"
LISTING = json.dumps({"apiVersion": "v1", "kind": "List", "items": [load(SERVICE)[0].to_manifest()] * 3})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LISTING[:-40].encode(), "error converting YAML to JSON"),
        (SERVICE.encode("utf-16"), "help: it is UTF-16: save it as UTF-8"),
        (SERVICE.encode("utf-16-le"), "the input is binary"),
        ((SERVICE + "# caf\xe9\n").encode("latin-1"), "is 0xe9"),
        (gzip.compress(SERVICE.encode()), "help: it is compressed"),
        (b"a: \x07b\n", "control characters are not allowed"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "binary"),
        (b"%PDF-1.4\n%", "error converting YAML to JSON"),
        (b'{"apiVersion": "v1", "kind": "List", "items": [1, null, []]}', "invalid object to validate"),
        (b'{"apiVersion": "v1", "kind": "List", "items": []}', "no objects passed"),
        (b'{"apiVersion": "v1", "kind": "PodList", "items": {}}', "kind"),
        (b'{"apiVersion": 1, "kind": ["x"]}', "must be a string"),
        (b"[]", "invalid object to validate"),
        (b"null", "no objects passed"),
        (b"<html><body>404</body></html>", "invalid object to validate"),
        (
            b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n"
            b"status: {podIPs: [{ip: 10.244.0.5}, {ip: 10.244.0.555}]}\n",
            'status.podIPs[1]: Invalid value: "10.244.0.555": must be a valid IP address',
        ),
    ],
)
def test_a_sentence_says_what_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(file)
    assert says in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_standard_input_that_is_no_text() -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        load("-", stdin=io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00a: 1"), encoding="utf-8"))


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(SERVICE)
    real = os.fstat
    asked = []

    def fstat(number: int) -> os.stat_result:
        if asked:
            with file.open("a") as writer:
                writer.write("---\n")
        asked.append(number)
        return real(number)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(InputError, match="changed while it was read"):
        load(file)


def test_places_in_a_long_json_list() -> None:
    """Items are read one by one; their lines are those of the file, tabs and text on the first line or not."""
    good, bad = load(SERVICE)[0].to_manifest(), load(SERVICE)[0].to_manifest()
    bad["spec"]["ports"][0]["port"] = 0
    manifest = {"apiVersion": "v1", "kind": "List", "items": [good, bad, good, bad]}
    for indent in (4, None):
        text = json.dumps(manifest, indent=indent)
        with pytest.raises(InputError) as caught:
            load(text)
        lines = text.splitlines()
        assert len(caught.value.faults) == 4, caught.value
        for fault in caught.value.faults:
            assert lines[fault.line - 1][fault.column - 1 :].startswith(("0", '"port": 0', '"ports"', "{")), (
                fault
            )
        assert len({(fault.line, fault.column) for fault in caught.value.faults}) > 1


def test_several_json_objects_in_one_file() -> None:
    one = json.dumps(load(SERVICE)[0].to_manifest())
    assert len(load(f"{one}\n{one.replace('web', 'api')}\n")) == 2


def test_a_key_that_comes_twice_in_a_list_is_told() -> None:
    text = LISTING.replace('"port": 80', '"port": 80, "port": 81', 1)
    found = read(text)
    assert [obj.spec.ports[0].port for obj in found.objects] == [81, 80, 80]  # type: ignore[union-attr]
    assert [warning.path for warning in found.warnings] == ["spec.ports[0].port"]


def test_nothing_of_a_secret_is_kept_or_told() -> None:
    text = """
apiVersion: v1
kind: Secret
metadata:
  name: key
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"data":{"a":"aHVudGVyMg=="}}'}
data: {a: aHVudGVyMg==}
stringData: {b: hunter2}
"""
    (secret,) = load(text)
    assert isinstance(secret, Secret)
    stored = Store().create(secret)
    for shown in (repr(secret), dump(secret), dump(stored), repr(stored)):
        assert "hunter2" not in shown
        assert "aHVudGVyMg" not in shown
    assert stored.data == {"a": "", "b": ""}
    with pytest.raises(InputError) as caught:
        load(text.replace("hunter2", "1234567"))
    assert "1234567" not in str(caught.value)


NONSENSE = {
    "one scalar": "b'x' * SIZE",
    "lines": "b'- a\\n' * (SIZE // 4)",
    "brackets": "b'[' * SIZE",
    "json numbers": "b'{\"a\": [' + b'1,' * (SIZE // 2) + b'1]}'",
    "json items": "b'{\"kind\": \"List\", \"items\": [' + b'1,' * (SIZE // 2) + b'1]}'",
    "truncated list": 'b\'{"kind": "List", "items": [\' + b\'{"a": "some text of a pod"},\' * (SIZE // 28)',
    "zeros": "bytes(SIZE)",
    "random bytes": "random.Random(1).randbytes(SIZE)",
    "random text": "base64.b64encode(random.Random(1).randbytes(SIZE))",
    "keys": "b''.join(b'k%d: 1\\n' % i for i in range(SIZE // 10))",
    "alias bomb": (
        "b'a: &a [x,x,x,x,x,x,x,x,x]\\n' + b''.join(b'%c: &%c [%s]\\n' % (98 + i, 98 + i, "
        "b','.join([b'*%c' % (97 + i)] * 9)) for i in range(12))"
    ),
    "documents": "b'---\\n' * (SIZE // 4)",
}


def bounded(expression: str, size: int, megabytes: int) -> subprocess.CompletedProcess[str]:
    """Read nonsense in a process of its own that may not have more memory than this."""
    script = textwrap.dedent(f"""
        import base64, os, random, sys, tempfile
        from kubenet_lab.errors import InputError
        from kubenet_lab.manifests import load
        SIZE = {size}
        with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
            file.write({expression})
            file.flush()
            try:
                load(file.name)
            except InputError as error:
                assert len(str(error)) < 500_000, len(str(error))
                print(str(error)[:300])
    """)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_within_bounds(name: str) -> None:
    result = bounded(NONSENSE[name], 300_000, 512)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "/" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NONSENSE)
def test_a_hundred_megabytes_of_nonsense(name: str) -> None:
    result = bounded(NONSENSE[name], 100_000_000, 1536)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "/" in result.stdout


INPUTS: list[Any] = [case["input"] for file in ("defaults", "invalid") for case in open_case("api", file)]
TEXTS: list[str] = [case["yaml"] for case in open_case("api", "yaml")]
JUNK: list[Any] = [
    None,
    "",
    "x",
    "A b/\u00e9\n",
    "x" * 300,
    "80",
    "10.0.0.0/8",
    "::1",
    "None",
    0,
    -1,
    65536,
    2**31,
    2**63,
    2**70,
    1.5,
    True,
    False,
    [],
    {},
    [None],
    [{}],
    [[]],
    {"a": None},
    {"matchLabels": {"a": "b"}},
    [""],
    [0, "x", {}],
]


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for item in value.values():
            found += nodes(item)
    elif isinstance(value, list):
        found += [(value, index) for index in range(len(value))]
        for item in value:
            found += nodes(item)
    return found


def mutated(chance: random.Random) -> Any:
    """A recorded object with some of it replaced, removed, renamed or repeated."""
    manifest = copy.deepcopy(chance.choice(INPUTS))
    for _ in range(chance.randint(1, 4)):
        places = nodes(manifest)
        if not places:
            break
        where, key = chance.choice(places)
        action = chance.randrange(5)
        if action == 0 and isinstance(where, dict):
            where[chance.choice(["name", "spec", "Ports", "x y", "metadata", "null"])] = where.pop(key)
        elif action == 1:
            del where[key]
        elif action == 2 and isinstance(where, list):
            where.append(copy.deepcopy(where[key]))
        else:
            where[key] = copy.deepcopy(chance.choice(JUNK))
    return manifest


def accepted_or_refused(text: str) -> None:
    for lenient in (False, True):
        refused: InputError | None = None
        try:
            found = read(text, lenient=lenient)
        except InputError as error:
            refused = error
        if refused is not None:
            assert refused.faults
            assert all(fault.message for fault in refused.faults)
            assert str(refused)
        else:
            assert all(load(dump(obj, "json"), lenient=True) for obj in found.objects)


def answered(manifest: Any) -> None:
    store = Store()
    store.create(Namespace(metadata=ObjectMeta(name="demo")))
    if isinstance(manifest, dict):
        answer = admission.create(store, manifest, DUAL_STACK, strict=False)
        assert (answer.object is None) == (answer.status is not None)
        admission.spoken(answer)
        if answer.object is not None:
            again = admission.update(store, answer.object.to_manifest(), DUAL_STACK)
            assert again.code == 200, again.status


@seed(1)
@settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 2**32))
def test_mutated_objects_are_accepted_or_refused(number: int) -> None:
    chance = random.Random(number)
    manifest = mutated(chance)
    accepted_or_refused(json.dumps(manifest, indent=chance.choice([None, 2])))
    answered(manifest)


@seed(1)
@settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 2**32))
def test_mutated_texts_are_accepted_or_refused(number: int) -> None:
    chance = random.Random(number)
    text = chance.choice(TEXTS) if chance.random() < 0.5 else dump(load(SERVICE))
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(text) + 1)
        action = chance.randrange(3)
        if action == 0:
            text = text[:at] + text[at + chance.randint(1, 8) :]
        elif action == 1:
            piece = chance.choice(
                ["\t", "- ", "{", "}", "[", "]", ": ", "&a ", "*a", "<<: ", "\n", "'", '"', "---\n"]
            )
            text = text[:at] + piece + text[at:]
        else:
            text = text[:at] + chr(chance.randrange(0x20, 0x2FFF)) + text[at:]
    accepted_or_refused(text + "\n")


def judged(text: str, lenient: bool, stored: int) -> None:
    """A set of objects, some of which the cluster has already: each refusal is told at a place of the text."""
    found = check(text, lenient=lenient)
    had = {(obj.kind, obj.metadata.namespace, obj.metadata.name): obj for obj in found.objects[:stored]}
    if found.faults or len(had) < stored:
        had = {}
    else:
        found = check(text, lenient=lenient, changes=had.values())
    try:
        admitted = admission.admit(
            found.objects, DUAL_STACK, refused=found.refused, before=tuple(had.values())
        )
    except Invalid:
        assert had, "only what the cluster is said to have may be impossible"
        return
    faults = placed(found, admitted.refusals, text)
    assert len(faults) == len(found.faults) + len(admitted.refusals)
    for refusal in admitted.refusals:
        assert any(fault.message == refusal.cause.message and fault.line for fault in faults)
    dump(admitted.objects, "json")
    if not faults:
        assert len(admitted.objects) == len(found.objects)
        slices_of(found.objects, DUAL_STACK)


@seed(1)
@settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 2**32))
def test_mutated_sets_are_judged(number: int) -> None:
    chance = random.Random(number)
    items = [mutated(chance) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.5:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    else:
        text = "---\n" + "\n---\n".join(json.dumps(item) for item in items)
    judged(text, chance.random() < 0.5, chance.choice([0, 0, 1, 2]))
