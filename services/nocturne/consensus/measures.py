"""A validator's metrics."""

from __future__ import annotations

from collections import Counter
from typing import Final

from nocturne.consensus.validator_metrics import ValidatorMeasures
from nocturne.core.blocks import Block, RecordDisposition
from nocturne.core.receipts import reason_of
from nocturne.runtime.telemetry import BATCH_BUCKETS, Metrics

SNAPSHOT_BUCKETS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)


class Measures:
    """The validator's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.height = metrics.gauge("height", "Newest block made")
        self.published = metrics.gauge("published_height", "Newest block the broker acknowledged")
        self.records = metrics.counter("records", "Offsets disposed of")
        self.last_block = metrics.gauge(
            "last_block_timestamp_seconds", "Time in the newest block made, since 1970; 0: none"
        )
        self.lag = metrics.gauge("lag_records", "Records in the log that no block has")
        self.partition_lag = metrics.gauge(
            "partition_lag_records", "The same, of each partition", ("partition",)
        )
        self.intake_stands = metrics.gauge(
            "intake_stands", "1 while the commands topic is not the certified log"
        )
        self.dispositions = metrics.counter(
            "dispositions",
            "Offsets disposed of, by outcome: events, gap, or the reason of the receipt",
            ("outcome",),
        )
        self.block_records = metrics.histogram(
            "block_records", "Offsets in a block", buckets=BATCH_BUCKETS
        )
        self.block_seconds = metrics.histogram(
            "block_seconds", "From a block's first record to its acknowledgement"
        )
        self.execute_seconds = metrics.histogram(
            "execute_seconds", "Executing and certifying a block"
        )
        self.fsync_seconds = metrics.histogram("fsync_seconds", "Journal append and fsync")
        self.snapshot_seconds = metrics.histogram(
            "snapshot_seconds", "Writing a snapshot", buckets=SNAPSHOT_BUCKETS_S
        )
        self.snapshots_joined = metrics.counter(
            "snapshots_joined", "Snapshots of other validators that this one went on from"
        )
        self.snapshots_refused = metrics.counter(
            "snapshots_refused",
            "Validators whose snapshot was false or came too slowly",
            ("cause",),
        )
        self.snapshot_bytes_fetched = metrics.counter(
            "snapshot_fetched_bytes", "Of snapshots, from other validators"
        )
        self.snapshot_bytes_given = metrics.counter(
            "snapshot_given_bytes", "Of snapshots, to other validators"
        )
        self.blocks_fetched = metrics.counter(
            "blocks_fetched", "Blocks whose records other validators gave, not the own log"
        )
        self.blocks_refused = metrics.counter(
            "block_bytes_refused", "Validators that gave other bytes than a block's"
        )
        self.block_bytes_given = metrics.counter(
            "block_given_bytes", "Of blocks, to other validators that lack their records"
        )
        self.ignored = metrics.counter(
            "foreign_block_records", "Records of the blocks topic that are no committed block"
        )
        self.refused = metrics.counter(
            "peer_messages_refused", "Messages of validators that no correct one sends"
        )
        self.evidence = metrics.counter(
            "evidence", "Pairs that one validator signed and no correct one signs both"
        )
        self.validator = ValidatorMeasures(metrics)
        self.journal_bytes = metrics.gauge(
            "journal_bytes_since_snapshot", "What a start would execute again"
        )

    def made(self, block: Block) -> None:
        """A block was certified."""
        header = block.header
        self.height.set(header.height)
        self.last_block.set(header.time / 1000)
        self.records.inc(header.record_count)
        self.block_records.observe(header.record_count)
        outcomes = Counter(map(_outcome_of, block.records))
        for outcome, count in outcomes.items():
            self.dispositions.labels(outcome).inc(count)


def _outcome_of(record: RecordDisposition) -> str:
    if record.events:
        return "events"
    if record.receipt is None:
        return "gap"
    return reason_of(record.receipt).name.lower()
