"""From an order to the work that carries it out: which device, which key, which certificate, and whether now is the time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from optima_bridge.enroll.issue import About, Ask, DryIssue, Issue, identifier_bytes
from optima_bridge.enroll.jobs import Job
from optima_bridge.enroll.orders import Kind, Order
from optima_bridge.enroll.pki.check import certified_identifier
from optima_bridge.enroll.records import Teller
from optima_bridge.enroll.stations import Station
from optima_bridge.enroll.trust import Trust
from optima_bridge.enroll.words import Phase, fingerprint
from optima_bridge.enroll.work import Compare, DryRun, Enrol, GoBack, GoOn, Work
from optima_bridge.errors import ControllerBusy, EnrollRefused, KeyAbsent, NotFound, WrongKey
from optima_bridge.model import Capability

READS_KEYS = frozenset({Capability.KEY_READER, Capability.CARD_READER})


class Orders:
    """Understands orders, given whom the store trusts and which devices it has."""

    def __init__(self, trust: Trust, stations: Mapping[str, Station]) -> None:
        self._trust = trust
        self._stations = stations

    def has_store(self, name: str) -> bool:
        return name in self._stations and Capability.SECURE_STORE in self._stations[name].abilities

    def resolved(self, order: Order) -> Order:
        """The order with the device that is to hold the certificate: the reader itself, or the only one that can.

        Raises:
            NotFound: it, or the reader, is not configured. EnrollRefused: it has no secure memory, or it is not clear which.
        """
        for name in (order.reader, order.holder):
            if name not in self._stations:
                known = ", ".join(self._stations) or "none"
                raise NotFound(f"no device {name!r} is configured; there are: {known}")
        if self.has_store(order.holder):
            return order
        holders = self.holders
        if len(holders) == 1 and not order.controller:
            return msgspec.structs.replace(order, controller=holders[0])
        raise EnrollRefused(
            f"{order.holder} has no secure memory",
            cause="it is a reader only" if holders else "no device of this store has any",
            next_step=f"name the device that has: --controller {' or '.join(holders)}"
            if holders
            else "see which drivers have it: bridge drivers list",
            holders=holders,
        )

    @property
    def holders(self) -> list[str]:
        """Devices with secure memory."""
        return [name for name in self._stations if self.has_store(name)]

    def ready(self, name: str) -> None:
        """Raises ControllerBusy: the controller is in the middle of something."""
        status, since = self._stations[name].controller()
        if status in ("busy", "pending-transaction"):
            what = "has a pending transaction" if status == "pending-transaction" else "is busy"
            raise ControllerBusy(
                f"{name} {what} since {since}; it can run as soon as {name} reports ready",
                next_step=f"finish or clear it ([C] until idle); bridge monitor {name} --type controller shows when",
                status=status,
                since=since,
            )

    async def identifier(self, order: Order, teller: Teller) -> str | None:
        """The supervisor key in the reader, where the order needs one or waits for one.

        Raises:
            KeyAbsent: it is not there. WrongKey: the certificate is about another one.
        """
        issues = order.kind in (Kind.ENROLL, Kind.DRY_RUN) and not order.certificate
        needed = issues or order.kind is Kind.REQUEST or order.controller != "" or order.wait_key_s > 0
        if not needed or order.kind in (Kind.VERIFY, Kind.ROLLBACK, Kind.RESUME):
            return None
        station = self._stations[order.reader]
        if not station.abilities & READS_KEYS:
            raise EnrollRefused(
                f"{order.reader} reads no keys",
                cause="it is not the reader, or the certificate has to come from elsewhere",
                next_step="name the reader first: bridge enroll READER --controller DEVICE; or bring --cert FILE",
            )
        identifier = station.present
        if identifier is None and order.wait_key_s:
            teller.phase(Phase.WAIT)
            try:
                async with asyncio.timeout(order.wait_key_s):
                    identifier = await station.next_identifier()
            except TimeoutError:
                pass
        if identifier is None:
            raise KeyAbsent(f"there is no key in {order.reader}")
        if order.certificate:
            certified = certified_identifier(order.certificate)
            if certified is not None and certified != identifier_bytes(identifier):
                raise WrongKey(f"another key is in {order.reader} than the one that the certificate is about")
        return identifier

    def work(self, job: Job, identifier: str | None, teller: Teller) -> Work:
        """What is to be done; reads the CA's files."""
        order = job.order
        if order.kind is Kind.VERIFY:
            return Compare(order.sha256 or fingerprint(order.certificate))
        about = About(identifier or "", order.number, same=order.holder == order.reader)
        if order.kind is Kind.REQUEST:
            return Ask(order.organization, order.store, about, teller.request)
        check = self._trust.check_for()

        def enrol(certificate: bytes) -> Enrol:
            return Enrol(
                job=job.id,
                certificate=certificate,
                check=check,
                passed=teller.passed,
                report=teller.phase,
                ready=lambda: self.ready(job.device),
                replace=order.replace or order.kind in (Kind.ROLLBACK, Kind.RESUME),
                if_fingerprint=order.if_fingerprint,
                accept_single_slot=order.accept_single_slot,
                erase_old=order.erase_old,
            )

        match order.kind, bool(order.certificate):
            case Kind.ROLLBACK, _:
                return GoBack(enrol)
            case Kind.RESUME, _:
                return GoOn(enrol, order.resume, teller.phase)
            case Kind.DRY_RUN, True:
                return DryRun(enrol(order.certificate), teller.plan)
            case Kind.DRY_RUN, False:
                return DryIssue(self._trust.authority(), about, enrol, teller.plan)
            case _, True:
                return enrol(order.certificate)
            case _:
                return Issue(self._trust.authority(), about, enrol)
