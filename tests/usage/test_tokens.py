"""K6: the shape of a personal access token."""

import math

import pytest

from usage import tokens


def test_k6_a_token_carries_at_least_160_random_bits():
    assert tokens.SECRET_LENGTH * math.log2(len(tokens.ALPHABET)) >= 160
    assert len({tokens.generate()[0] for _ in range(500)}) == 500


def test_what_is_generated_parses_to_the_same_parts():
    token, parts = tokens.generate()
    assert tokens.parse(token.encode()) == parts
    assert token.startswith("sb_" + parts.lookup)
    assert token not in parts.hash and len(parts.hash) == 64


@pytest.mark.parametrize("position", range(tokens.TOKEN_LENGTH))
def test_k6_one_wrong_character_anywhere_is_refused_without_the_database(position):
    token = bytearray(tokens.generate()[0].encode())
    token[position] = ord("A") if token[position] != ord("A") else ord("B")
    assert tokens.parse(bytes(token)) is None


@pytest.mark.parametrize(
    "odd",
    [b"", b"sb_", b"Bearer", b"\x00" * tokens.TOKEN_LENGTH, b"\xff" * tokens.TOKEN_LENGTH, b"sb_" + b"a" * 1_000_000],
)
def test_k6_odd_bytes_are_no_token(odd):
    assert tokens.parse(odd) is None


def test_k6_a_token_with_something_after_it_is_no_token():
    token = tokens.generate()[0].encode()
    assert (
        tokens.parse(token + b"\n") is None and tokens.parse(b" " + token) is None and tokens.parse(token[:-1]) is None
    )
