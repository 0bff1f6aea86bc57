"""kill -9 of the enrolling process at any moment: what a PKCS#11 token holds is the old or the new certificate."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Phase, fingerprint
from tests.enroll.token_job import DONE, job, opened, worker
from tests.enroll.world_pkcs11 import active_in_files
from tests.softhsm import SoftHsm, give_back, memory_folder, needs_softhsm

LABEL = "optima-ctl-1"
TIMEOUT_S = 30.0


class Killer:
    """A token, the journal of its host, and processes that die while they enrol."""

    def __init__(self, folder: Path, seed: int) -> None:
        from tests.cryptoki_faults import faults

        self.hsm = SoftHsm(folder / "hsm")
        faults()  # healed: the power-loss worlds give the token of this process another serial number
        self.hsm.make(LABEL)
        self.where = (self.hsm.uri(LABEL), str(self.hsm.pin_file))
        self.directory = str(folder / "state")
        Path(self.directory).mkdir()
        self.chance = random.Random(seed)
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload([worker.__module__, "optima_bridge.link.cryptoki"])
        self.jobs = 0
        self.tried: list[bytes] = []

    def which(self, certificate: bytes | None) -> str:
        """Which one this is of those that were enrolled, for people."""
        if certificate in self.tried:
            return f"number {self.tried.index(certificate)} of {len(self.tried)}"
        return "none" if certificate is None else f"unknown, {len(certificate)} bytes"

    def process(self, certificate: bytes, phase: str = DONE, after_s: float = 0.0) -> dict[str, float]:
        """Enrol in a process of its own, killed so long after a phase began; returns how long each phase took."""
        self.jobs += 1
        self.tried.append(certificate)
        said, theirs = self.processes.Pipe(duplex=False)
        what = (self.directory, f"job-{self.jobs}", certificate)
        process = self.processes.Process(target=worker, args=(theirs, self.hsm.environment, self.where, *what))
        process.start()
        theirs.close()
        began_s: dict[str, float] = {}
        while phase not in began_s and DONE not in began_s:
            assert said.poll(TIMEOUT_S)
            began_s.setdefault(said.recv(), time.monotonic())
        if phase != DONE:
            time.sleep(after_s)
            process.kill()
        process.join(TIMEOUT_S)
        assert process.exitcode in ({0} if phase == DONE else {0, -signal.SIGKILL})
        said.close()
        give_back()
        return {name: then_s - now_s for (name, now_s), (_, then_s) in pairwise(began_s.items())}


async def rehearse(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill that often, settle each; returns what was found at power-up, before and after it was settled."""
    killer = Killer(folder, seed)
    seen = {"old": 0, "new": 0, "settled old": 0, "settled new": 0}
    killer.process(killer.chance.randbytes(600))
    old = killer.chance.randbytes(600)
    phases = killer.process(old)
    assert {Phase.WRITE, Phase.COMMIT, Phase.CONFIRM} <= set(phases)
    for number in range(kills):
        new = killer.chance.randbytes(858)
        phase = [*phases][number % len(phases)]
        killer.process(new, phase, killer.chance.uniform(0, phases[phase]))
        active, _ = active_in_files(killer.hsm.tokens)
        assert active in {old, new}, f"killed in {phase}: {killer.which(active)} is active"
        seen["new" if active == new else "old"] += 1
        async with opened(*killer.where) as (store, serial):
            before = max(state.generation for state in await store.inspect() if state.active)
            with HostJournal(Path(killer.directory)) as journal:
                result = await recover(store, journal)
            slots = await store.inspect()
            [now] = [state for state in slots if state.active]
            assert now.generation >= before
            assert await store.read(now.slot) in {old, new}
            if result is not None:
                assert result.outcome is (Outcome.VERIFIED if now.sha256 == fingerprint(new) else Outcome.ROLLED_BACK)
                assert result.active_sha256 == now.sha256
                assert now.sha256 == fingerprint(new) or fingerprint(new) not in [state.sha256 for state in slots]
            seen["settled new" if now.sha256 == fingerprint(new) else "settled old"] += 1
            again = await job(store, serial, killer.directory, f"again-{killer.jobs}", new)
            assert again.outcome is Outcome.VERIFIED
        give_back()
        assert active_in_files(killer.hsm.tokens) == (new, 2)
        old = new
    return seen


@needs_softhsm
async def test_a_killed_process_leaves_the_old_or_the_new_certificate_in_the_token() -> None:
    with memory_folder() as folder:
        await rehearse(Path(folder), 8, seed=time.time_ns())


@needs_softhsm
@pytest.mark.slow
async def test_sixty_killed_processes_leave_nothing_else() -> None:
    with memory_folder() as folder:
        print(await rehearse(Path(folder), 60, seed=time.time_ns()))
