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
LINE, HOUSING, HEADS = "line", "housing", "heads"  # who tells of a fault: what one raises, no other clears
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
        self._faults: set[tuple[int, str, str]] = set()  # address, code, and who told

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
                yield from self._fault(address, TAMPER, HOUSING, now_ns, active=reply.tampered)
                yield from self._fault(address, POWER, HOUSING, now_ns, active=reply.power_failed)
            case Readers():
                yield from self._fault(address, TAMPER, HEADS, now_ns, active=HEAD_TAMPER in reply.status)
                yield from self._fault(address, SILENT, HEADS, now_ns, active=HEAD_MISSING in reply.status)
            case Inputs() if self._seal_input is not None:
                told = self._seal_input <= len(reply.active)
                self._contacts[address] = reply.active[self._seal_input - 1] is self._broken_when if told else None
                yield from self._seal_news(address, now_ns)
            case _:
                pass

    def came_back(self, address: int, now_ns: int) -> Iterator[News]:
        """A reader answers."""
        yield from self._fault(address, SILENT, LINE, now_ns, active=False)
        yield from self._fault(address, REFUSED, LINE, now_ns, active=False)

    def went_away(self, address: int, error: BridgeError, now_ns: int) -> Iterator[News]:
        """A reader does not answer, or cannot be used: nothing is known of its contact."""
        silent = isinstance(error, LinkTimeout)
        yield from self._fault(address, SILENT, LINE, now_ns, active=silent)
        yield from self._fault(address, REFUSED, LINE, now_ns, active=not silent)
        yield from self.does_not_tell(address, now_ns)

    def does_not_tell(self, address: int, now_ns: int) -> Iterator[News]:
        """A reader was asked for its inputs and did not say: of its contact nothing is known."""
        self._contacts[address] = None
        yield from self._seal_news(address, now_ns)

    def _fault(self, address: int, code: str, teller: str, now_ns: int, *, active: bool) -> Iterator[News]:
        """Somebody tells that a fault is there, or is not; it is there while anybody says so."""
        before = self._told(address, code)
        (self._faults.add if active else self._faults.discard)((address, code, teller))
        if self._told(address, code) is before:
            return
        data: Data = {"address": address, "code": code}
        yield Event(Subject.FAULT, "cleared" if before else "raised", now_ns, data, state=self._fault_state())

    def _told(self, address: int, code: str) -> bool:
        return any((address, code, teller) in self._faults for teller in (LINE, HOUSING, HEADS))

    def _fault_state(self) -> Data:
        known = sorted({(address, code) for address, code, _ in self._faults})
        faults: list[Data] = [{"address": address, "code": code} for address, code in known]
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
