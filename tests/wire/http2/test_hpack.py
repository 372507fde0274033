"""HPACK: the examples of RFC 7541, its rules by section, and the ``hpack`` library as a second reader."""

from __future__ import annotations

import tracemalloc

import pytest
from hpack import Decoder, Encoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import example, given
from hypothesis import strategies as st

from apigw.wire.http2 import hpack
from apigw.wire.http2.field import CONNECTION_SPECIFIC
from apigw.wire.http2.frames import Code, ConnectionFault
from apigw.wire.http2.hpack import FieldDecoder, encode_head, encode_request
from apigw.wire.http2.hpack_tables import STATIC, codes

Fields = list[tuple[bytes, bytes]]
AUTHORITY = (b":authority", b"www.example.com")
START = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), AUTHORITY]
NO_CACHE = (b"cache-control", b"no-cache")
CUSTOM = (b"custom-key", b"custom-value")
REQUESTS = [
    (START, [AUTHORITY], 57),
    ([*START, NO_CACHE], [NO_CACHE, AUTHORITY], 110),
    (
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), AUTHORITY, CUSTOM],
        [CUSTOM, NO_CACHE, AUTHORITY],
        164,
    ),
]
"""Appendices C.3 and C.4: the fields, then the dynamic table and its size."""
EXAMPLES: dict[str, list[tuple[str, Fields, Fields, int]]] = {
    "C.2.1 indexed literal": [
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            [(b"custom-key", b"custom-header")],
            [(b"custom-key", b"custom-header")],
            55,
        )
    ],
    "C.2.2 literal without indexing": [("040c2f73616d706c652f70617468", [(b":path", b"/sample/path")], [], 0)],
    "C.2.3 literal never indexed": [("100870617373776f726406736563726574", [(b"password", b"secret")], [], 0)],
    "C.2.4 indexed field": [("82", [(b":method", b"GET")], [], 0)],
    "C.3 requests": [
        ("828684410f7777772e6578616d706c652e636f6d", *REQUESTS[0]),
        ("828684be58086e6f2d6361636865", *REQUESTS[1]),
        ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", *REQUESTS[2]),
    ],
    "C.4 requests in Huffman code": [
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", *REQUESTS[0]),
        ("828684be5886a8eb10649cbf", *REQUESTS[1]),
        ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", *REQUESTS[2]),
    ],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples(name: str) -> None:
    """The fields, the dynamic table and its size are those of the appendix."""
    decoder = FieldDecoder()
    for block, fields, table, size in EXAMPLES[name]:
        assert [field.pair for field in decoder.decode(bytes.fromhex(block), 1000)[0]] == fields
        assert (decoder.table, decoder.table_size) == (table, size)


RESPONSES = [
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
        "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        [b"302", b"private", b"Mon, 21 Oct 2013 20:13:21 GMT", b"https://www.example.com"],
        222,
    ),
    (
        "4803333037c1c0bf",
        "4883640effc1c0bf",
        [b"307", b"private", b"Mon, 21 Oct 2013 20:13:21 GMT", b"https://www.example.com"],
        222,
    ),
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a6970"
        "7738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab"
        "77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        [b"200", b"private", b"Mon, 21 Oct 2013 20:13:22 GMT", b"https://www.example.com", b"gzip",
         b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"],
        215,
    ),
]  # fmt: skip
NAMES = [b":status", b"cache-control", b"date", b"location", b"content-encoding", b"set-cookie"]


@pytest.mark.parametrize("huffman", [False, True])
def test_the_examples_of_eviction(huffman: bool) -> None:
    """Appendices C.5 and C.6: responses with a table of 256 bytes, from which entries are evicted."""
    decoder = FieldDecoder()
    decoder.decode(b"\x3f\xe1\x01", 1000)
    for plain, coded, values, size in RESPONSES:
        block = bytes.fromhex(coded if huffman else plain)
        assert [field.value for field in decoder.decode(block, 1000)[0]] == values
        assert [field.name for field in decoder.decode(b"", 1000)[0]] == []
        assert decoder.table_size == size
    assert decoder.table == [
        (b"set-cookie", RESPONSES[2][2][5]),
        (b"content-encoding", b"gzip"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
    ]


def test_the_tables_are_those_of_another_implementation() -> None:
    """The static table, and the Huffman code that follows from the lengths."""
    assert STATIC == HeaderTable.STATIC_TABLE
    theirs = zip(REQUEST_CODES_LENGTH, REQUEST_CODES, strict=True)
    assert codes() == {code: symbol for symbol, code in enumerate(theirs)}


FAULTS = {
    "§2.3.3: an index of 62 with an empty table": "be",
    "§2.3.3: a name's index beyond the table": "7e0161",
    "§4.2: a size update after a field": "8220",
    "§6.3: a size update beyond SETTINGS_HEADER_TABLE_SIZE": "3fe21f",
    "§5.1: an integer that is cut short": "ff",
    "§5.1: an integer that goes on and is cut short": "ff80",
    "§5.1: an integer of more than five bytes": "ff8080808001",
    "§5.2: no string": "00",
    "§5.2: no value": "000161",
    "§5.2: a string that is cut short": "0003616200",
    "§5.2: a string of 2^28 bytes": "007f81feffff7f",
    "§5.2: padding longer than seven bits": "000161821fff",
    "§5.2: padding that is not of ones": "0001618100",
    "§5.2: EOS in a string": "00016184ffffffff",
    "§5.2: only EOS": "00016185fffffffffc",
    "§6.1: index 0": "80",
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    """Each is a connection error of the type COMPRESSION_ERROR."""
    with pytest.raises(ConnectionFault) as caught:
        FieldDecoder().decode(bytes.fromhex(FAULTS[name]), 1000)
    assert caught.value.code == Code.COMPRESSION_ERROR


TAKEN: dict[str, tuple[str, Fields, Fields]] = {
    "§4.2: two size updates in front": ("203fe11f82", [(b":method", b"GET")], []),
    "§4.3: a smaller table loses its oldest entries": (
        "4001610162" + "4001630164" + "823f03",
        [(b"a", b"b"), (b"c", b"d"), (b":method", b"GET")],
        [(b"c", b"d")],
    ),
    "§4.4: a field that is larger than the table empties it": (
        "40016101624001637f81" + "20" + "62" * 4224,
        [(b"a", b"b"), (b"c", b"b" * 4224)],
        [],
    ),
    "§2.3.2: duplicates are entries of their own": (
        "40016101624001610162",
        [(b"a", b"b"), (b"a", b"b")],
        [(b"a", b"b"), (b"a", b"b")],
    ),
    "§6.2.1: a name from the table": ("40016101627e0163", [(b"a", b"b"), (b"a", b"c")], [(b"a", b"c"), (b"a", b"b")]),
    "§5.1: an integer with superfluous zeros": ("3f800082", [(b":method", b"GET")], []),
    "§5.2: an empty string in Huffman code": ("00016180", [(b"a", b"")], []),
    "an empty block": ("", [], []),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    """What looks odd and is right."""
    block, fields, table = TAKEN[name]
    decoder = FieldDecoder()
    data = bytes.fromhex(block)
    at = data.find(b"\x82\x3f") + 1 if "smaller" in name else len(data)  # a size update begins a block of its own
    decoded = decoder.decode(data[:at], 100_000)[0] + decoder.decode(data[at:], 100_000)[0]
    assert [field.pair for field in decoded] == fields
    assert decoder.table == table


@given(
    st.lists(
        st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=300), st.booleans()), max_size=20), max_size=10
    ),
    st.booleans(),
)
def test_blocks_decode_as_they_were_encoded(blocks: list[list[tuple[bytes, bytes, bool]]], huffman: bool) -> None:
    """Whatever fields a client sends, indexed or not, in whatever order, they arrive as they were."""
    encoder, decoder = Encoder(), FieldDecoder()
    for block in blocks:
        fields, size = decoder.decode(encoder.encode(block, huffman=huffman), 1_000_000)
        assert [field.pair for field in fields] == [(name, value) for name, value, _ in block]
        assert size == sum(len(name) + len(value) + 4 for name, value, _ in block)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.binary(max_size=200)), max_size=20))
@example([(name.title(), b"") for name in CONNECTION_SPECIFIC])
def test_what_is_sent_decodes(fields: Fields) -> None:
    """Another implementation reads what the encoder wrote, with names in lower case and without those of one hop."""
    block = encode_request(b"PURGE", b"https", b"a" * 127, b"/" * 500, fields)
    start = [(b":method", b"PURGE"), (b":scheme", b"https"), (b":authority", b"a" * 127), (b":path", b"/" * 500)]
    expected = [(name.lower(), value) for name, value in fields if name.lower() not in CONNECTION_SPECIFIC]
    assert Decoder().decode(block, raw=True) == start + expected
    assert Decoder().decode(encode_head(299, fields), raw=True) == [(b":status", b"299"), *expected]


def test_a_block_beyond_the_limit_is_not_kept() -> None:
    """It is read to its end, for the sake of the table."""
    fields, size = FieldDecoder().decode(encode_head(200, [(b"a", b"b" * 100)]) * 1000, 1000)
    assert size > 100_000
    assert sum(field.size for field in fields) < 1200


def test_long_names_are_not_remembered() -> None:
    """What a service calls its fields does not stay in memory, and arrives all the same."""
    tracemalloc.start()
    try:
        for number in range(400):
            name = b"x-%d-" % number + b"y" * 32_000
            fields, _ = FieldDecoder().decode(encode_head(200, [(name, b"z")]), 100_000)
            assert [field.pair for field in fields] == [(b":status", b"200"), (name, b"z")]
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_secrets_are_not_remembered() -> None:
    """A value that the client neither indexes nor marks stays in no memory, if its field is one of credentials."""
    hpack._DECODED.clear()
    coded = bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")  # RFC 7541 C.4.1
    for name, kept in (
        (b"authorization", False),
        (b"cookie", False),
        (b"set-cookie", False),
        (b"x-api-key", False),
        (b":authority", True),
        (b"x-path", True),
    ):
        block = b"\x00" + bytes((len(name),)) + name + bytes((0x80 | len(coded),)) + coded
        fields, _ = FieldDecoder().decode(block, 1000)
        assert [field.pair for field in fields] == [(name, b"www.example.com")]
        assert (coded in hpack._DECODED) is kept
