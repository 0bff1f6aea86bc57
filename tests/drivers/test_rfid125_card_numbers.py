"""The other names of a card, against the vectors of the protocol document."""

from __future__ import annotations

import pytest

from optima_drivers.rfid125.card_numbers import decimal10, facility_and_card, wiegand26, wiegand34


@pytest.mark.parametrize(
    ("identifier", "decimal", "printed", "bits"),
    [
        ("67003B51C6", "0003887558", "059,20934", "10011101101010001110001100"),
        ("67003BA86C", "0003909740", "059,43116", "10011101110101000011011000"),
        ("67003BA867", "0003909735", "059,43111", "10011101110101000011001111"),
        ("100086F444", "0008844356", "134,62532", "11000011011110100010001000"),
        ("0C000621A5", "0000401829", "006,08613", "10000011000100001101001010"),
        ("62E3086CED", "3808980205", "008,27885", "10000100001101100111011011"),
    ],
)
def test_every_vector_has_its_printed_and_wiegand_names(identifier: str, decimal: str, printed: str, bits: str) -> None:
    assert decimal10(identifier) == decimal
    assert facility_and_card(identifier) == printed
    assert wiegand26(int(identifier, 16) & 0xFFFFFF) == bits


def test_the_wiegand_examples_hold() -> None:
    assert wiegand26(1 << 16 | 1) == "10000000100000000000000010"
    assert wiegand34(0x0086F444) == "1000000001000011011110100010001000"


def test_two_cards_can_share_their_wiegand_26_number() -> None:
    assert facility_and_card("67003B51C6") == facility_and_card("12343B51C6")


@pytest.mark.parametrize("number", [-1, 1 << 24])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="does not fit 24 bits"):
        wiegand26(number)
