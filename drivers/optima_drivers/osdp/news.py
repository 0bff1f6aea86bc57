"""What readers say, as events and states of one device: cards, keys pressed, the seal's contact, faults. Sans-io.

Several readers on one line are one device. Each event says whose it is (``address``); a state is about all of them: the
seal is broken if one is, and the fault is active while any is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optima_bridge.errors import BridgeError, LinkTimeout
from optima_bridge.model import Data, Event, Observation, Subject
from optima_drivers.osdp.messages import Card, Inputs, Keypad, Local, Readers, Reply

News = Event | Observation

TAMPER, POWER, SILENT, REFUSED = "reader-tamper", "reader-power", "reader-silent", "reader-refused"
HEAD_MISSING, HEAD_TAMPER = 1, 2  # reader status, section 7.7


class Newsroom:
    """Tells what is new in what is said.

    Args:
        addresses: of all readers.
        seal_input: the input that is the seal's contact, 1 is the first one; None: there is no seal.
        seal_active: what an active input means: ``broken`` or ``intact``.
    """

    def __init__(self, addresses: Sequence[int], seal_input: int | None, seal_active: str) -> None:
        self._seal_input = seal_input
        self._broken_when = seal_active == "broken"
        self._contacts: dict[int, bool | None] = dict.fromkeys(addresses)  # whether the seal is broken, by address
        self._seal = "unknown"
        self._faults: set[tuple[int, str]] = set()

    def beginning(self) -> Observation:
        """The first word about faults: none is known."""
        return Observation(Subject.FAULT, self._fault_state())

    def said(self, address: int, reply: Reply, now_ns: int) -> Iterator[News]:
        """What a reply tells that was not known before."""
        match reply:
            case Card():
                data: Data = {
                    "address": address,
                    "reader": reply.reader,
                    "bits": reply.bits,
                    "format": "wiegand" if reply.wiegand else "raw",
                }
                yield Event(Subject.CARD, "presented", now_ns, data, reply.data.hex().upper())
            case Keypad():
                pressed: Data = {"address": address, "reader": reply.reader, "keys": reply.count}
                yield Event(Subject.CARD, "typed", now_ns, pressed)
            case Local():
                yield from self.fault(address, TAMPER, now_ns, active=reply.tampered)
                yield from self.fault(address, POWER, now_ns, active=reply.power_failed)
            case Readers():
                yield from self.fault(address, TAMPER, now_ns, active=HEAD_TAMPER in reply.status)
                yield from self.fault(address, SILENT, now_ns, active=HEAD_MISSING in reply.status)
            case Inputs() if self._seal_input is not None and self._seal_input <= len(reply.active):
                self._contacts[address] = reply.active[self._seal_input - 1] is self._broken_when
                yield from self._seal_news(address, now_ns)
            case _:
                pass

    def came_back(self, address: int, now_ns: int) -> Iterator[News]:
        """A reader answers."""
        yield from self.fault(address, SILENT, now_ns, active=False)
        yield from self.fault(address, REFUSED, now_ns, active=False)

    def went_away(self, address: int, error: BridgeError, now_ns: int) -> Iterator[News]:
        """A reader does not answer, or cannot be used: nothing is known of its contact."""
        silent = isinstance(error, LinkTimeout)
        yield from self.fault(address, SILENT, now_ns, active=silent)
        yield from self.fault(address, REFUSED, now_ns, active=not silent)
        self._contacts[address] = None
        yield from self._seal_news(address, now_ns)

    def fault(self, address: int, code: str, now_ns: int, *, active: bool) -> Iterator[News]:
        """A fault is there, or is not."""
        before = (address, code) in self._faults
        if active is before:
            return
        self._faults ^= {(address, code)}
        data: Data = {"address": address, "code": code}
        yield Event(Subject.FAULT, "raised" if active else "cleared", now_ns, data, state=self._fault_state())

    def _fault_state(self) -> Data:
        faults: list[Data] = [{"address": address, "code": code} for address, code in sorted(self._faults)]
        return {"active": bool(faults), "faults": faults}

    def _seal_news(self, address: int, now_ns: int) -> Iterator[News]:
        contacts = set(self._contacts.values())
        before, self._seal = self._seal, "broken" if True in contacts else "unknown" if None in contacts else "intact"
        if self._seal == before:
            return
        state: Data = {"seal": self._seal}
        if "unknown" in (before, self._seal):  # found, not seen to happen
            yield Observation(Subject.SEAL, state)
        else:
            action = "opened" if self._seal == "broken" else "closed"
            yield Event(Subject.SEAL, action, now_ns, {**state, "address": address}, state=state)
