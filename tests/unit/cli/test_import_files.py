"""import xes, text, csv and jsonl: files into sessions, and one sentence for what is none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.memory_ledger import Shell
from tests.unit.imports.test_xes import LOG, in_log

from nocturne.imports import many

ORDERS = "order,what,when,item\n17,Ordered,0,tea\n18,Ordered,1,rice\n17,Paid,2026-11-21,\n"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """Writes a file; its path."""

    def make(name: str, data: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)

    return make


Make = Callable[[str, str | bytes], str]


def held(shell: Shell) -> dict[str, list[tuple[str, object]]]:
    return {
        session: [(e.header.event_type, json.loads(e.payload.data)) for e in events]
        for session, events in shell.ledger.events_of.items()
    }


def test_an_event_log_becomes_a_session_a_case(shell: Shell, made: Make) -> None:
    file = made("permits.xes.gz", gzip.compress(LOG.encode()))
    told = shell.json("import", "xes", file)
    assert {k: told[k] for k in ("imported", "skipped", "sessions")} == {
        "imported": 3,
        "skipped": 0,
        "sessions": 2,
    }
    assert sorted(held(shell)) == ["xes/permits/@:2", "xes/permits/case@201@2fa"]
    assert shell.json("import", "xes", file)["skipped"] == 3
    assert shell.run("import", "xes", file, "--prefix", "again/") == 0
    assert "permits.xes.gz into 2 sessions  3 events imported, 0 events there already" in shell.out
    assert "again/@:2" in held(shell)


def test_rows_become_events_of_the_sessions_that_they_name(shell: Shell, made: Make) -> None:
    file = made("orders.csv", ORDERS)
    mapping = ["--session-column", "order", "--type-column", "what", "--time-column", "when"]
    told = shell.json("import", "csv", file, *mapping, "--session-prefix", "orders/")
    assert (told["imported"], told["sessions"]) == (3, 2)
    assert held(shell) == {
        "orders/17": [("Ordered", {"item": "tea"}), ("Paid", {"item": ""})],
        "orders/18": [("Ordered", {"item": "rice"})],
    }
    assert shell.ledger.events_of["orders/17"][1].header.occurred_at == 1_795_219_200_000


def test_a_table_of_another_encoding_and_delimiter(shell: Shell, made: Make) -> None:
    file = made("orders.tsv", "order\titem\n1\tthé\n".encode("utf-16"))
    mapping = ["--session-column", "order", "--type", "Bought", "--kind", "document"]
    assert shell.run(
        "import", "csv", file, *mapping, "--delimiter", "tab", "--encoding", "utf-16"
    ) == (0)
    assert held(shell) == {"1": [("Bought", {"item": "thé"})]}


def test_json_lines_become_events_by_keys_and_pointers(shell: Shell, made: Make) -> None:
    first = '{"order":{"id":17},"what":"Ordered","at":5}'
    second = '{"order":{"id":18},"what":"Paid","at":6}'
    file = made("orders.jsonl", f"{first}\n\n{second}")
    mapping = ["--session-column", "/order/id", "--type-column", "what", "--payload-columns", "at"]
    assert shell.run("import", "jsonl", file, *mapping) == 0
    assert held(shell) == {"17": [("Ordered", {"at": 5})], "18": [("Paid", {"at": 6})]}


def test_a_bar_is_shown_on_a_terminal_only(shell: Shell, made: Make) -> None:
    file = made("orders.csv", ORDERS)
    assert shell.run("import", "csv", file, "--session-column", "order", terminal=True) == 0
    assert shell.run("import", "csv", file, "--session-column", "item", "--json") == 2
    assert shell.err.count("\n") == 1


CSV = ["--session-column", "order"]


@pytest.mark.parametrize(
    "kind, name, data, options, sentence",
    [
        ("xes", "a.xes", "", [], "line 1: this is no XML"),
        ("xes", "a.xes", "<!DOCTYPE log><log/>", [], "line 1: the file declares a document type"),
        ("xes", "a.xes", in_log("<trace><event/></trace><x/>"), [], "has the 1 event before it"),
        ("xes", "a.gz", gzip.compress(LOG.encode())[:-30], [], "the packed file ends too early"),
        ("xes", "a.gz", gzip.compress(bytes(10**6)), ["--bytes-max", "9"], "--bytes-max"),
        ("xes", "a.xes", LOG, ["--prefix", "a b"], "is no prefix of session ids"),
        ("xes", "a.xes", LOG, ["--kind", "poetry"], "no session kind 'poetry'"),
        ("text", "a.json", "[]", [], "expected a JSON object with startContent"),
        ("csv", "a.csv", "", CSV, "expected a header"),
        ("csv", "a.csv", ORDERS, ["--session-column", "id"], "there is no column 'id'"),
        ("csv", "a.csv", ORDERS + "1,2\n", CSV, "line 5: expected 4 fields"),
        ("csv", "a.csv", b"order\n1\n\xff\n", CSV, "line 3: this is not 'utf-8'"),
        ("csv", "a.csv", ORDERS, [*CSV, "--encoding", "klingon"], "is no text encoding"),
        ("csv", "a.csv", ORDERS, [*CSV, "--encoding", "hex"], "is no text encoding"),
        ("csv", "a.csv", ORDERS, [*CSV, "--delimiter", "ab"], "is no delimiter"),
        ("csv", "a.csv", ORDERS, [*CSV, "--type", "a b"], "is no event type"),
        ("csv", "a.csv", ORDERS, [*CSV, "--type", "A", "--type-column", "what"], "not both"),
        ("csv", "a.csv", "order\n" + "x" * 2_000_000, CSV, "line 2: expected less than"),
        ("jsonl", "a.jsonl", "", CSV, "expected a JSON object, got an empty file"),
        ("jsonl", "a.jsonl", '{"order":"1"}\n{"order":', CSV, "line 2: JSON"),
        ("jsonl", "a.jsonl", '{"order":"1"}\n[]', CSV, "has the 1 event before it"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(
    shell: Shell,
    made: Make,
    kind: str,
    name: str,
    data: str | bytes,
    options: list[str],
    sentence: str,
) -> None:
    shell.run("keys", "new", "default")
    assert shell.run("import", kind, made(name, data), *options) == 2, shell.err
    assert sentence in shell.err
    assert shell.err.count("\n") == 1
    assert "Traceback" not in shell.err


@pytest.mark.parametrize("kind", ["xes", "text", "csv", "jsonl"])
def test_a_folder_a_device_and_a_file_that_is_not_there_are_bad_use(
    shell: Shell, tmp_path: Path, kind: str
) -> None:
    options = CSV if kind in ("csv", "jsonl") else []
    for path in (tmp_path, tmp_path / "none", Path("/dev/null")):
        assert shell.run("import", kind, str(path), *options) == 2
        assert shell.err.count("\n") == 1


def test_a_ledger_that_is_away_ends_with_3_and_says_that_it_goes_on(
    shell: Shell, made: Make
) -> None:
    shell.ledger.unavailable = "Nothing runs."
    file = made("orders.csv", ORDERS)
    assert shell.run("import", "csv", file, *CSV, "--deadline", "0") == 3
    assert "running the import again goes on there" in shell.err
    assert shell.run("import", "csv", file, *CSV, "--deadline", "nan") == 2


def test_a_refusal_ends_with_1(shell: Shell, made: Make) -> None:
    file = made("orders.csv", ORDERS)
    shell.run("keys", "new", "other")
    assert shell.run("import", "csv", made("few.csv", ORDERS[: ORDERS.index("18")]), *CSV) == 0
    assert shell.run("import", "csv", file, *CSV, "--as", "other") == 1
    assert "The ledger refused event" in shell.err
