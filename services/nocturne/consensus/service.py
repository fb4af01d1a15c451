"""The consensus service: one validator, or an observer.

Rules: docs/spec/consensus.md, docs/spec/peers.md. A validator with its journal certifies
(`validator`). A key without its journal may have voted before: it never votes again. Its process
says so to whoever asks how it is, and waits to be stopped: it follows nothing, and validators that
call it are turned away.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from nocturne.consensus import codec
from nocturne.consensus.control_servicer import ControlDesk, ControlServicer
from nocturne.consensus.measures import Measures
from nocturne.consensus.own_votes import HeardVotes
from nocturne.consensus.peers import PEER_MESSAGE_BYTES_MAX, Peers
from nocturne.consensus.reporting import Noticed, degraded_report, report_of
from nocturne.consensus.store import Store
from nocturne.consensus.validator import Validator, peer_reports
from nocturne.consensus.validator_servicer import ValidatorReport, ValidatorServicer
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.keys import Key, Signer, key_id
from nocturne.core.modes import Degraded, DegradedFound
from nocturne.runtime import journal, kafka
from nocturne.runtime.degraded import LedgerMode, stay_degraded
from nocturne.runtime.home import CannotStart, held_alone
from nocturne.runtime.journal import JournalMissing, JournalOfAnother
from nocturne.runtime.keys import load_signer
from nocturne.runtime.kinds import check_kinds, installed_kinds
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.rpc import RpcServer, serve
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import KafkaSettings, KeySettings, PeerSettings, read_founding

log = structlog.get_logger()


class Settings(KafkaSettings, KeySettings, PeerSettings):
    """What a validator is told."""


async def run(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run one validator until it is told to stop."""
    kafka.measure_rotation(settings.cluster, lifecycle.metrics)
    founding = read_founding(settings.genesis_file)
    kinds = installed_kinds()
    check_kinds(founding.genesis, kinds)
    signer = load_signer(settings.key_file)
    with held_alone(settings.home_dir):
        mode = LedgerMode(settings.home_dir, founding.ledger_id)
        store = _store_of(settings.home_dir, founding.ledger_id, signer)
        measures = Measures(lifecycle.metrics)
        desk = ControlDesk()
        heard = HeardVotes()
        validator: Validator | None = None

        async def hear(sender: Key, value: codec.Value) -> None:
            if validator is None:
                # Nothing is held without a journal, and that would count as an answer.
                return
            if isinstance(value, codec.AskVotes):
                peers.send(sender, codec.NewestVotes(heard.of(sender)))
            else:
                await validator.hear(sender, value)

        peers = Peers(
            founding.ledger_id,
            signer,
            settings.peers,
            lambda: founding.genesis.validator_set.keys if validator is None else validator.members,
            hear,
            settings,
            lifecycle.metrics,
        )

        def report() -> ValidatorReport:
            found = starting_report() if validator is None else validator.report()
            return degraded_report(found, mode.kept)

        def starting_report() -> ValidatorReport:
            validators = founding.genesis.validator_set
            others = peer_reports(peers.statuses(), validators)
            cause = "" if store is not None else "its key's journal is not in its folder"
            return report_of(
                founding.ledger_id, signer.key, validators, others, Noticed(), None, cause
            )

        server = await serve(
            settings.listen,
            [
                ControlServicer(desk).rpc_service(),
                ValidatorServicer(report).rpc_service(),
                peers.rpc_service(),
            ],
            message_bytes_max=PEER_MESSAGE_BYTES_MAX,
            vitals=lifecycle.vitals,
            security=security_of(settings, lifecycle.metrics),
            trailing=mode.metadata,
        )
        try:
            if mode.kept is not None:
                await _stay_degraded(lifecycle, server, mode.kept, measures, report)
                return
            if store is None:
                await _observe(lifecycle, settings.home_dir)
                return
            validator = Validator(
                settings.cluster,
                settings.registry_url,
                lifecycle,
                founding,
                kinds,
                signer,
                store,
                peers,
                heard,
                desk,
                measures,
                mode,
            )
            try:
                await validator.run(server)
            except DegradedFound as found:
                desk.close()
                await _stay_degraded(lifecycle, server, found.degraded, measures, report)
        finally:
            await server.stop()


def _store_of(home: Path, ledger_id: LedgerId, signer: Signer) -> Store | None:
    try:
        return Store(home, journal.owner_label(ledger_id, signer.key))
    except JournalMissing:
        return None
    except JournalOfAnother as fault:
        raise CannotStart(
            f"the key {format_hash(key_id(signer.key))} is not the one that the journal in "
            f"{home / journal.FOLDER} was made with: {fault}"
        ) from fault


async def _stay_degraded(
    lifecycle: Lifecycle,
    server: RpcServer,
    kept: Degraded,
    measures: Measures,
    report: Callable[[], ValidatorReport],
) -> None:
    """Nobody here knows which of two histories is the ledger's: it prolongs neither, and says so
    until it is told to stop.
    """
    measures.validator.set(report())
    await stay_degraded(server, lifecycle.stopping, kept)


async def _observe(lifecycle: Lifecycle, home: Path) -> None:
    log.error(
        "observing",
        cause=f"the key's journal is not in {home / journal.FOLDER}; a key votes only with the "
        "journal that it was made with, for nothing else knows how it voted",
        way_out="stop, put the journal back as it last was, start again; or have another key take "
        "this one's place: nocturne validators rotate",
    )
    lifecycle.vitals.set_serving(False, "observing: the key's journal is not in its folder")
    await lifecycle.stopping.wait()
