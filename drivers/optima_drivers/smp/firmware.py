"""What Zephyr's MCUmgr does with a request, on the simulated controller's memory. Sans-io.

Not simulated: file handles that close after a second, the shell, images.
Source: Zephyr, subsys/mgmt/mcumgr/grp/{os_mgmt,fs_mgmt,settings_mgmt}, as of version 4.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

import msgspec

from optima_bridge.errors import FrameError
from optima_drivers.smp import layout
from optima_drivers.smp.commands import FILES, OS, SETTINGS
from optima_drivers.smp.memory import Memory
from optima_drivers.smp.message import Message, Op, Refusal, read

DIRECTORY = "/lfs1"
VALUE_BYTES = 32  # of a setting, CONFIG_MCUMGR_GRP_SETTINGS_VALUE_LEN

Body = dict[str, object]


class Fields(msgspec.Struct, frozen=True):
    """All fields that a request may have; which of them count depends on the command."""

    d: str = ""
    format: str = "s"
    name: str = ""
    val: bytes = b""
    off: int = 0
    data: bytes = b""
    len: int | None = None
    type: str = "crc32"


HASHES: dict[str, Callable[[bytes], int | bytes]] = {
    "crc32": zlib.crc32,
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


class Firmware:
    """Between power-up and power-up: what is in RAM.

    Attributes:
        memory: files and settings; survives.
    """

    def __init__(self, memory: Memory, serial: str, words: dict[str, str], buffer_bytes: int, chunk_bytes: int) -> None:
        self.memory = memory
        self._serial = serial.encode("ascii")
        self._words = words
        self._buffer_bytes = buffer_bytes
        self._chunk_bytes = chunk_bytes
        self._upload: tuple[str, int, int] | None = None  # path, where the next chunk goes, size in all
        self._commands: dict[tuple[Op, int, int], Callable[[Fields], Body | Refusal]] = {
            (Op.READ, OS, 0): self._echo,
            (Op.WRITE, OS, 0): self._echo,
            (Op.READ, OS, 6): self._parameters,
            (Op.READ, OS, 7): self._info,
            (Op.READ, SETTINGS, 0): self._read_setting,
            (Op.WRITE, SETTINGS, 0): self._write_setting,
            (Op.WRITE, SETTINGS, 1): self._delete_setting,
            (Op.WRITE, SETTINGS, 2): lambda _: {},
            (Op.READ, SETTINGS, 3): self._load_settings,
            (Op.WRITE, SETTINGS, 3): self._save_settings,
            (Op.READ, FILES, 0): self._read_file,
            (Op.WRITE, FILES, 0): self._write_file,
            (Op.READ, FILES, 1): self._status,
            (Op.READ, FILES, 2): self._hash,
            (Op.READ, FILES, 3): self._hashes,
            (Op.WRITE, FILES, 4): self._close,
        }

    def do(self, asked: Message) -> Body | Refusal:
        """The body of the answer, or why there is none."""
        command = self._commands.get((asked.op, asked.group, asked.command))
        if command is None:
            return Refusal(8)
        try:
            fields = read(asked.body, Fields)
        except FrameError:
            return Refusal(3)
        return fields if isinstance(fields, Refusal) else command(fields)

    def _echo(self, asked: Fields) -> Body:
        with self.memory.reading():
            return {"r": asked.d}

    def _parameters(self, _: Fields) -> Body:
        with self.memory.reading():
            return {"buf_size": self._buffer_bytes, "buf_count": 4}

    def _info(self, asked: Fields) -> Body | Refusal:
        if not set(asked.format) <= set(self._words):
            return Refusal(2, OS)
        with self.memory.reading():
            return {"output": " ".join(word for letter, word in self._words.items() if letter in asked.format)}

    def _read_setting(self, asked: Fields) -> Body | Refusal:
        with self.memory.reading():
            if not asked.name.startswith(f"{layout.ROOT}/"):
                return Refusal(5, SETTINGS)
            value = self._serial if asked.name == layout.SERIAL else self.memory.settings.get(asked.name)
        return Refusal(3, SETTINGS) if value is None else {"val": value[:VALUE_BYTES]}

    def _write_setting(self, asked: Fields) -> Body | Refusal:
        if not asked.name.startswith(f"{layout.ROOT}/"):
            return Refusal(5, SETTINGS)
        if asked.name == layout.SERIAL:
            return Refusal(7, SETTINGS)
        with self.memory.reading():
            self.memory.settings[asked.name] = asked.val
        return {}

    def _delete_setting(self, asked: Fields) -> Body:
        self.memory.delete(asked.name)
        return {}

    def _load_settings(self, _: Fields) -> Body:
        with self.memory.reading():
            self.memory.settings.update(self.memory.image.saved)
        return {}

    def _save_settings(self, asked: Fields) -> Body:
        self.memory.save(asked.name)
        return {}

    def _close(self, _: Fields) -> Body:
        with self.memory.reading():
            self._upload = None
        return {}

    def _write_file(self, asked: Fields) -> Body | Refusal:
        """fs_mgmt_file_upload(): counts on from where it was while the same upload is open, even at offset 0."""
        name, offset = asked.name, asked.off
        if offset == 0 and asked.len is None:
            return Refusal(3)
        if not name.startswith(f"{DIRECTORY}/"):
            return Refusal(14, FILES)
        _, expected, size_bytes = self._upload if self._upload and self._upload[0] == name else (name, 0, 0)
        if offset == 0:
            size_bytes = asked.len or 0
        elif expected == 0:
            expected = len(self.memory.image.files.get(name, b""))
        if offset not in (0, expected):
            self._upload = None
            return Refusal(11, FILES)
        self.memory.write(name, offset, asked.data)
        expected += len(asked.data)
        self._upload = None if 0 < size_bytes <= expected else (name, expected, size_bytes)
        return {"off": expected}

    def _read_file(self, asked: Fields) -> Body | Refusal:
        self._upload = None
        content = self._content(asked)
        if isinstance(content, Refusal):
            return content
        answer: Body = {"off": asked.off, "data": content[asked.off : asked.off + self._chunk_bytes]}
        return answer if asked.off else {**answer, "len": len(content)}

    def _status(self, asked: Fields) -> Body | Refusal:
        content = self._content(asked)
        return content if isinstance(content, Refusal) else {"len": len(content)}

    def _hash(self, asked: Fields) -> Body | Refusal:
        if asked.type not in HASHES:
            return Refusal(13, FILES)
        content = self._content(asked)
        if isinstance(content, Refusal):
            return content
        if len(content) <= asked.off:
            return Refusal(12 if content else 16, FILES)
        hashed = content[asked.off :][: asked.len]
        answer: Body = {"type": asked.type, "len": len(hashed), "output": HASHES[asked.type](hashed)}
        return {**answer, "off": asked.off} if asked.off else answer

    def _hashes(self, _: Fields) -> Body:
        return {"types": {"crc32": {"format": 0, "size": 4}, "sha256": {"format": 1, "size": 32}}}

    def _content(self, asked: Fields) -> bytes | Refusal:
        with self.memory.reading():
            return self.memory.image.files.get(asked.name, Refusal(3, FILES))
