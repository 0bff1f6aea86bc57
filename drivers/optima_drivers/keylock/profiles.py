"""What is known of models: data only, in the words that a store uses for its own programming.

Nearly all of them can be programmed to say something else; `positions` in the configuration takes the place of a profile's.
Sources: NCR RealPOS 5953 USB DynaKey manual; Posiflex KB-6600 manual, "answer back code"; Ultimate Technology series 500 and
600 programming guides, function codes 38 … 44 and commands B6, B7. Mapping to UnifiedPOS: LOCK 1, NORM 2, SUPR 3, others from 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from optima_drivers.keylock.turning import LOCK, NORM, SUPR

MAX_POSITIONS = 16
Text = Annotated[str, StringConstraints(pattern=r"^[ -~]+$", max_length=32)]
KeyNames = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]+( [A-Z0-9]+)*$", max_length=100)]


class Position(BaseModel):
    """One position of a lock."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    code: int = Field(ge=1, le=99, description="UnifiedPOS number: 1 LOCK, 2 NORM, 3 SUPR, from 4 on the model's own")
    name: Text | None = Field(default=None, description="what the maker calls it; published from code 4 on")


class TypedPosition(Position):
    """A position that the keyboard types."""

    keys: KeyNames = Field(description="keys by their Linux names, with a blank between: K L 2, or F13")


class ReportedPosition(Position):
    """A position that is a button of a HID device."""

    button: int = Field(ge=1, le=65535, description="usage on the Button page")


class TextPosition(Position):
    """A position that is a line of text."""

    text: Text = Field(description="the whole line, without its end")


def distinct(values: Sequence[object], what: str) -> None:
    """Raises ValueError: two positions have the same `what`."""
    if len(set(values)) < len(values):
        raise ValueError(f"two positions have the same {what}")


class TypedProfile(msgspec.Struct, frozen=True):
    """A keyboard that types its position; on a `whole_keyboard` people type too, so it must never be taken for ourselves."""

    positions: tuple[TypedPosition, ...]
    whole_keyboard: bool = True


class ReportProfile(msgspec.Struct, frozen=True):
    """A device that reports its position; `application` is usage page << 16 | usage of the collection with the buttons."""

    application: int
    positions: tuple[ReportedPosition, ...]


class TextProfile(msgspec.Struct, frozen=True):
    """A device that sends its position as a line; `enquiry` asks it to."""

    positions: tuple[TextPosition, ...]
    enquiry: str = ""


TYPED: Mapping[str, TypedProfile] = {
    "posiflex": TypedProfile(
        (
            TypedPosition(code=LOCK, name="L0", keys="K L 0"),
            TypedPosition(code=NORM, name="L1", keys="K L 1"),
            TypedPosition(code=SUPR, name="L2", keys="K L 2"),
            TypedPosition(code=4, name="L3", keys="K L 3"),
            TypedPosition(code=5, name="L4", keys="K L 4"),
            TypedPosition(code=6, name="LP", keys="K L P"),
        )
    ),
    "ultimate": TypedProfile(  # says nothing as delivered: to be programmed like this
        (
            TypedPosition(code=LOCK, name="1", keys="K S 1"),
            TypedPosition(code=NORM, name="2", keys="K S 2"),
            TypedPosition(code=SUPR, name="3", keys="K S 3"),
        )
    ),
}

REPORTED: Mapping[str, ReportProfile] = {
    "ncr": ReportProfile(
        0xFF8F_0001,
        (
            ReportedPosition(code=4, name="Ex", button=1),
            ReportedPosition(code=LOCK, name="L", button=2),
            ReportedPosition(code=NORM, name="R", button=3),
            ReportedPosition(code=SUPR, name="S", button=4),
        ),
    ),
}

TEXT: Mapping[str, TextProfile] = {
    "ultimate": TextProfile(
        (
            TextPosition(code=LOCK, name="1", text="KS1"),
            TextPosition(code=NORM, name="2", text="KS2"),
            TextPosition(code=SUPR, name="3", text="KS3"),
        ),
        enquiry="B7\r",
    ),
}
