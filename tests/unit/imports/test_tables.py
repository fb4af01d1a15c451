"""Rows of CSV and of JSON lines: by a mapping of columns, in the order of the file."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.imports import tables
from nocturne.imports.records import Record, SourceFault
from nocturne.imports.tables import Columns

ORDERS = Columns("order")
ALL = Columns("order", "what", "RowRecorded", "when", None, "orders/")


def rows(text: str, columns: Columns = ORDERS, delimiter: str = ",") -> list[Record]:
    return list(tables.csv_records(io.StringIO(text, newline=""), columns, delimiter))


def lines(data: bytes, columns: Columns = ORDERS) -> list[Record]:
    return list(tables.jsonl_records(enumerate(data.split(b"\n"), 1), columns, 1_000_000))


def json_lines(*values: Any, columns: Columns = ORDERS) -> list[Record]:
    return lines("\n".join(json.dumps(value) for value in values).encode(), columns)


def test_a_row_is_a_record_of_the_session_that_it_names() -> None:
    text = 'order,what,when,item\n17,Ordered,2026-11-21T09:00:00Z,"tea, green"\n18,Paid,0,\n'
    assert rows(text, ALL) == [
        Record("orders/17", "Ordered", b'{"item":"tea, green"}', 1_795_251_600_000, "line 2"),
        Record("orders/18", "Paid", b'{"item":""}', 0, "line 3"),
    ]


def test_without_a_mapping_all_is_payload_and_the_time_unknown() -> None:
    assert rows("order,item\n17,tea\n") == [
        Record("17", "RowRecorded", b'{"item":"tea"}', 0, "line 2")
    ]


def test_payload_columns_are_those_named() -> None:
    columns = Columns("order", payload=("order", "b"))
    assert rows("order,a,b\n1,2,3\n", columns)[0].payload == b'{"b":"3","order":"1"}'


def test_a_row_may_take_many_lines_and_blank_ones_are_none() -> None:
    found = rows('order,note\n\n1,"a\r\nb"\n\n2,c\n')
    assert [(r.place, r.payload) for r in found] == [
        ("line 3", b'{"note":"a\\r\\nb"}'),
        ("line 6", b'{"note":"c"}'),
    ]


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"))] * 2),
        max_size=8,
    ),
    st.sampled_from(",;\t|"),
)
def test_what_python_writes_is_read_back(cells: list[tuple[str, str]], delimiter: str) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["order", "a", "b"])
    writer.writerows([("x", *row) for row in cells])
    found = [json.loads(record.payload) for record in rows(out.getvalue(), delimiter=delimiter)]
    assert found == [{"a": a, "b": b} for a, b in cells]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "line 1: expected a header"),
        ("\n\n", "line 1: expected a header"),
        ("a,b\n1,2\n", "line 1: there is no column 'order'; the header has 'a, b'"),
        ("order,a,a\n", "line 1: expected each column once, got 'a' again"),
        ("order,a\n1\n", "line 2: expected 2 fields as in the header, got 1"),
        ("order,a\n1,2\n1,2,3\n", "line 3: expected 2 fields as in the header, got 3"),
        ('order,a\n1,"2\n', "line 2: this is no CSV: unexpected end of data"),
        ('order,a\n1,"2"3\n', "line 2: this is no CSV"),
        ("order,a\n1,a\0b\n", "line 2: a NUL in text"),
        ("order,a\n,2\n", "line 2: the session's column 'order' is empty"),
        ("order,a\n1," + "x" * 200_000 + "\n", "line 2: this is no CSV: field larger"),
        ("order," + ",".join(map(str, range(5000))) + "\n", "at most 4096 columns"),
    ],
)
def test_what_is_no_table_is_one_sentence_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(SourceFault) as caught:
        rows(text)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_quote_that_is_never_closed_is_not_collected() -> None:
    def endless() -> Any:
        yield "order,a\n"
        yield 'x,"a\n'
        for _ in range(1_000_000):
            yield 'b","a\n'
        raise AssertionError("read on and on")

    with pytest.raises(SourceFault, match=r"is a quote not closed\?"):
        list(tables.csv_records(endless(), ORDERS))


@pytest.mark.parametrize("name", ["", "two words", "nocturne.MemberAdded", "x" * 129, "é"])
def test_an_event_type_that_is_none_is_refused_and_never_an_act_of_the_ledger(name: str) -> None:
    with pytest.raises(SourceFault, match=r"line 1: .*is no event type"):
        json_lines({"order": "1", "what": name}, columns=Columns("order", "what"))


def test_a_line_is_a_record_by_keys_and_by_pointers() -> None:
    columns = Columns("/order/id", "what", time="/at/0", payload=("/order", "n"))
    value = {"order": {"id": 17}, "what": "Ordered", "at": [1000], "n": 1.50}
    (record,) = json_lines(value, columns=columns)
    assert record == Record("17", "Ordered", b'{"/order":{"id":17},"n":1.5}', 1000, "line 1")
    (whole,) = json_lines(value, columns=Columns("/order/id", "what"))
    assert json.loads(whole.payload) == {"order": {"id": 17}, "at": [1000], "n": 1.5}


def test_a_pointer_escapes_as_rfc_6901_says() -> None:
    columns = Columns("/a~1b~0c")
    assert json_lines({"a/b~c": "s"}, columns=columns)[0].session == "s"


@pytest.mark.parametrize(
    "data, sentence",
    [
        (b"", "line 1: expected a JSON object"),
        (b"[]", "line 1: expected a JSON object"),
        (b'{"order":"1"}\n{', "line 2: JSON: expected RFC 8259"),
        (b'{"order":"1","order":"2"}', "line 1: JSON object: expected each name once"),
        (b'{"order":"1","n":NaN}', "line 1: JSON number"),
        (b'{"order":"1","n":1e999}', "line 1: JSON number"),
        (b'{"order":"1","n":12345678901234567890}', "line 1: JSON number"),
        (b'{"order":"\\udc00"}', "line 1: JSON: expected surrogates in pairs"),
        (b'{"order":"\xff"}', "line 1: JSON: expected UTF-8"),
        (b'{"order":"\0"}', "line 1: JSON: expected RFC 8259"),
        (b'{"order":' + b"[" * 10_000, "line 1: JSON: expected at most 64 levels"),
        (b"{}", "line 1: there is no 'order'"),
        (b'{"order":null}', "line 1: expected 'order' to be a text or a whole number"),
        (b'{"order":true}', "line 1: expected 'order' to be a text or a whole number"),
        (b'{"order":""}', "line 1: the session's column 'order' is empty"),
    ],
)
def test_a_line_that_is_no_record_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(SourceFault) as caught:
        list(tables.jsonl_records(enumerate(data.splitlines(), 1), ORDERS, 1_000_000))
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400
