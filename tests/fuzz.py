"""Coverage-guided fuzzing of the byte codecs, by hand: python tests/fuzz.py [CODEC [SECONDS]]; without a codec it lists them.

CODEC is a name of the list, or its first word for all of that family in turn. An input is what the codec reads, a byte that
says how a stream is cut, and one that says which codec of a family reads it. It ends at the first finding and tells the
file that holds its input; `python tests/fuzz.py CODEC FILE` repeats it.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SECONDS = 60
LIMITS = ("-timeout=10", "-rss_limit_mb=2048", "-max_len=8192")


def main(name: str = "", what: str = str(SECONDS)) -> None:
    if not name:
        print(*importlib.import_module("tests.codecs").CODECS, sep="\n")
        return
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit("the fuzzer is not installed: pip install atheris")
    with atheris.instrument_imports(include=["optima_bridge", "optima_drivers"]):
        codecs: Any = importlib.import_module("tests.codecs")
    chosen = [*codecs.named(name).values()]
    if not chosen:
        sys.exit(f"no codec {name!r}; without arguments it lists them")

    def one_input(data: bytes) -> None:
        if len(data) >= 2:
            chosen[data[-1] % len(chosen)].try_out(data[:-2], data[-2])

    directory = Path(tempfile.mkdtemp(prefix="optima-fuzz-"))
    corpus = directory / "corpus"
    corpus.mkdir()
    for which, codec in enumerate(chosen):
        for place, frame in enumerate((*codec.traffic, b"".join(codec.traffic))):
            (corpus / f"{which}-{place}").write_bytes(frame + bytes([0, which]))
    work = [f"-max_total_time={what}", str(corpus)] if what.isdecimal() else [what]
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={directory}/", *work], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
