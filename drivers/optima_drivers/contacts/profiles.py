"""Scales, as data: which counters each has, how they overflow, and how they are read.

What a maker's manual does not say is UNKNOWN here: it changes no verdict of "broken", only its explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from optima_drivers.contacts.counters import Overflow, Rule

ANY = Rule(1 << 32)
FIVE_DIGITS = Rule(100_000)
FIXED = Rule(1 << 32, Overflow.NOT_COUNTED)

Reading = Literal["typed", "rincmd", "tcr"]


class Profile(msgspec.Struct, frozen=True):
    """One family of scales.

    Attributes:
        counters: by name, with their rule.
        reading: how they come here: ``typed`` from the display by a person, or the dialogue of `dialects`.
        source: the manual.
    """

    counters: Mapping[str, Rule]
    reading: Reading
    source: str


PROFILES: Mapping[str, Profile] = {
    "rinstrum-r400": Profile(
        {"serial": FIXED, "oiml-calibration": ANY, "ntep-calibration": ANY, "ntep-configuration": ANY},
        "rincmd",
        "Rinstrum R300 and R400 reference manuals: registers 0005, 0012, 0013, 0014",
    ),
    "hbm-we2107": Profile(
        {"trade": Rule(65_536, Overflow.STOPS)}, "tcr", "HBM WE2107 manual: TCR, cannot be reset, stops at 65535"
    ),
    "ohaus-defender": Profile(
        {"calibration": Rule(1000, Overflow.WRAPS), "configuration": Rule(1000, Overflow.WRAPS)},
        "typed",
        "Ohaus Defender 2200, 3000, 7000 and Valor manuals: audit trail menu, CAL000 … CAL999 and CFG000 … CFG999",
    ),
    "cardinal-201": Profile(
        {"calibration": FIVE_DIGITS, "configuration": FIVE_DIGITS},
        "typed",
        "Cardinal 201 manual: CAL and CFg, Category 1",
    ),
    "rinstrum-r320": Profile(
        {"calibration": FIVE_DIGITS, "configuration": FIVE_DIGITS}, "typed", "Rinstrum R320 manual: C.00019 and F.00009"
    ),
    "cbe-m660": Profile(
        {"p60201": FIVE_DIGITS, "p60203": FIVE_DIGITS, "p60204": FIVE_DIGITS}, "typed", "CBE M660 manual"
    ),
    "rice-lake": Profile(
        {"calibration": ANY, "configuration": ANY}, "typed", "Rice Lake manuals: AUDIT, CALIB and CFG"
    ),
    "zebra-mp7000": Profile(
        {"c": Rule(1000), "p": Rule(1000)}, "typed", "Zebra MP7000 guide: Scale Zero for 3 s shows C###, then P###"
    ),
    # An example, of no maker: indicators without counters have a set-up list behind the sealed switch. What the inspector
    # reads there when sealing is the baseline; any other number later is a broken seal.
    "example-c01-c07": Profile(
        {f"c0{number}": FIXED for number in range(1, 8)}, "typed", "none: an example of protected parameters"
    ),
}
