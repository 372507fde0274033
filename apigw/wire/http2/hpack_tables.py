# Compiled: see docs/decisions/compiled.md
"""The constants of HPACK: its static table and its Huffman code (RFC 7541, appendices A and B)."""

from __future__ import annotations

from typing import Final

from apigw.wire.headers import Header

STATIC: Final[tuple[Header, ...]] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *((b":status", status) for status in (b"200", b"204", b"206", b"304", b"400", b"404", b"500")),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
"""The first has the index 1."""

LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"  # 0x00
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"  # 0x20
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"  # 0x40
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"  # 0x60
    "1416141416161617161717171717181718181617181717171715161716171718"  # 0x80
    "1615141616171715171616181516171715151615171617171416161617161617"  # 0xa0
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"  # 0xc0
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"  # 0xe0
)
"""The number of bits of each byte's code. The codes follow from them: they count up, shorter ones first, those of equal
length in the order of the bytes, and EOS is the last."""

EOS: Final = 256
"""The symbol that no string may contain. Its bits pad the last byte of a string."""
_EOS_LENGTH: Final = 30
_LONGEST_PADDING: Final = 7

# The decoder is a state machine that reads four bits at a time. Its states are the inner nodes of the tree of codes.
EMITS: Final = 0x100
"""In a transition: a byte is complete, which is in the lowest eight bits. The next state is in the bits from ``NEXT``,
ready to be combined with the next four bits of input: its number times 16."""
NEXT: Final = 9

Node = tuple[int, int]
"""How many bits have been read of a code, and these bits."""


def codes() -> dict[Node, int]:
    """The codes, each with its symbol."""
    lengths = [*LENGTHS, _EOS_LENGTH]
    found: dict[Node, int] = {}
    code = bits = 0
    for symbol in sorted(range(len(lengths)), key=lengths.__getitem__):
        code <<= lengths[symbol] - bits
        bits = lengths[symbol]
        found[bits, code] = symbol
        code += 1
    return found


def _machine() -> tuple[list[int], frozenset[int]]:
    """The transitions, by state and input, and the states in which a string may end."""
    symbols = codes()
    inner = {(bits - up, code >> up) for bits, code in symbols for up in range(1, bits + 1)}
    states = {node: 16 * number for number, node in enumerate(sorted(inner))}
    dead = 16 * len(states)
    transitions: list[int] = []
    for start in states:
        for nibble in range(16):
            node = start
            emitted = 0
            for shift in (3, 2, 1, 0):
                node = node[0] + 1, node[1] << 1 | nibble >> shift & 1
                symbol = symbols.get(node)
                if symbol == EOS:
                    break
                if symbol is not None:
                    emitted = EMITS | symbol
                    node = 0, 0
            transitions.append(states.get(node, dead) << NEXT | emitted)
    transitions += [dead << NEXT] * 16  # it is never left
    endings = frozenset(states[bits, (1 << bits) - 1] for bits in range(_LONGEST_PADDING + 1))
    return transitions, endings


_MACHINE: Final = _machine()
TRANSITIONS: Final[list[int]] = _MACHINE[0]
ENDINGS: Final[frozenset[int]] = _MACHINE[1]
