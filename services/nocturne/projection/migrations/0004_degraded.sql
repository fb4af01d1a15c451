-- Why the ledger is DEGRADED (docs/spec/modes.md), with the proof where there is one. No row: it is
-- not. Written once; a person removes it.
CREATE TABLE nocturne_v1.degraded (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    cause   smallint NOT NULL,
    text    text     NOT NULL,
    kept    bytea    NOT NULL
);
