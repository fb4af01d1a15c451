-- The read model: everything that was certified, its commit proofs, and the authority's signatures.
-- Rules: docs/spec/services.md, projection. Only `nocturne_projection` writes here; every row and
-- the position it was read at are written in one transaction.

CREATE SCHEMA IF NOT EXISTS nocturne_v1;

-- How far the ledger is applied, and what there is in all. One row.
CREATE TABLE nocturne_v1.progress (
    one_row      boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    ledger_id    bytea  NOT NULL CHECK (octet_length(ledger_id) = 32),
    height       bigint NOT NULL,
    block_digest bytea  NOT NULL,
    block_time   bigint NOT NULL,
    blocks       bigint NOT NULL,
    records      bigint NOT NULL,
    events       bigint NOT NULL,
    receipts     bigint NOT NULL,
    sessions     bigint NOT NULL
);

-- Where to read on. Below `next_offset` nothing is needed for a height that is not applied yet.
CREATE TABLE nocturne_v1.offsets (
    topic       text   NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- `leaves` are the leaf hashes of the disposition tree, 32 bytes each. `state_changes` are the
-- changed leaves of the state tree: 32-byte key, four bytes of length, value; length 2^32-1: removed.
CREATE TABLE nocturne_v1.blocks (
    height        bigint  PRIMARY KEY,
    digest        bytea   NOT NULL,
    time          bigint  NOT NULL,
    view          bigint  NOT NULL,
    record_count  integer NOT NULL,
    header        bytea   NOT NULL,
    proof         bytea   NOT NULL,
    seal          bytea   NOT NULL,
    leaves        bytea   NOT NULL,
    state_changes bytea   NOT NULL
);
-- Hashes do not compress: trying would only cost time.
ALTER TABLE nocturne_v1.blocks ALTER COLUMN leaves SET STORAGE EXTERNAL;
ALTER TABLE nocturne_v1.blocks ALTER COLUMN state_changes SET STORAGE EXTERNAL;
ALTER TABLE nocturne_v1.blocks ALTER COLUMN proof SET STORAGE EXTERNAL;

-- Offsets [first_offset, end_offset) of the commands topic are leaves first_leaf… of block height.
CREATE TABLE nocturne_v1.ranges (
    log_epoch    integer NOT NULL,
    partition    integer NOT NULL,
    first_offset bigint  NOT NULL,
    end_offset   bigint  NOT NULL,
    height       bigint  NOT NULL,
    first_leaf   integer NOT NULL,
    PRIMARY KEY (log_epoch, partition, first_offset)
);

-- One row for every offset of the commands topic. `kind`: 1 events, 2 receipt, 3 gap. An accepted
-- record's key and headers say nothing that its command does not; a refused record's are kept.
CREATE TABLE nocturne_v1.records (
    height         bigint   NOT NULL,
    leaf_index     integer  NOT NULL,
    kind           smallint NOT NULL CHECK (kind IN (1, 2, 3)),
    log_epoch      integer  NOT NULL,
    partition      integer  NOT NULL,
    record_offset  bigint   NOT NULL,
    command_hash   bytea,
    command_length integer  NOT NULL,
    value          bytea,
    key            bytea,
    headers        bytea,
    PRIMARY KEY (height, leaf_index)
);
ALTER TABLE nocturne_v1.records ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE INDEX records_command_hash ON nocturne_v1.records (command_hash)
    WHERE command_hash IS NOT NULL;

-- `signatures` are the authority's, as keys.signatures_bytes writes them.
CREATE TABLE nocturne_v1.events (
    session     text COLLATE "C" NOT NULL,
    sequence    bigint   NOT NULL,
    event_id    uuid     NOT NULL,
    event_hash  bytea    NOT NULL,
    height      bigint   NOT NULL,
    leaf_index  integer  NOT NULL,
    event_index integer  NOT NULL,
    header      bytea    NOT NULL,
    signatures  bytea    NOT NULL,
    PRIMARY KEY (session, sequence)
);
CREATE UNIQUE INDEX events_event_id ON nocturne_v1.events (event_id);

-- `home` is the session whose receipts_root holds the receipt, as leaf `home_index` from 0;
-- `session` is what the record names, only claimed if its author was not authenticated.
CREATE TABLE nocturne_v1.receipts (
    log_epoch     integer NOT NULL,
    partition     integer NOT NULL,
    record_offset bigint  NOT NULL,
    height        bigint  NOT NULL,
    leaf_index    integer NOT NULL,
    home          text COLLATE "C" NOT NULL,
    home_index    bigint  NOT NULL,
    session       text COLLATE "C" NOT NULL,
    claimed       boolean NOT NULL,
    reason        smallint NOT NULL,
    receipt_hash  bytea   NOT NULL,
    header        bytea   NOT NULL,
    signatures    bytea   NOT NULL,
    PRIMARY KEY (log_epoch, partition, record_offset)
);
CREATE UNIQUE INDEX receipts_home ON nocturne_v1.receipts (home, home_index);
CREATE INDEX receipts_session
    ON nocturne_v1.receipts (session, log_epoch, partition, record_offset);
CREATE INDEX receipts_home_position
    ON nocturne_v1.receipts (home, log_epoch, partition, record_offset);

-- `leaf` is the session's leaf of the state tree. Room is left on each page, so that updates, which
-- change no indexed column, stay on it.
CREATE TABLE nocturne_v1.sessions (
    session        text COLLATE "C" PRIMARY KEY,
    key            bytea   NOT NULL,
    kind           text    NOT NULL,
    kind_version   integer NOT NULL,
    sequence       bigint  NOT NULL,
    head_hash      bytea   NOT NULL,
    receipt_count  bigint  NOT NULL,
    closed         boolean NOT NULL,
    opened_at      bigint  NOT NULL,
    updated_at     bigint  NOT NULL,
    changed_height bigint  NOT NULL,
    leaf           bytea   NOT NULL CHECK (octet_length(leaf) = 144)
) WITH (fillfactor = 60);

-- Leaves of the state tree that are no session: the log positions.
CREATE TABLE nocturne_v1.state_leaves (
    key            bytea  PRIMARY KEY,
    value          bytea  NOT NULL,
    changed_height bigint NOT NULL
);

-- Records of strangers, by where they stand, so that none is counted twice; only the latest stay.
CREATE TABLE nocturne_v1.refused_records (
    topic         text    NOT NULL,
    partition     integer NOT NULL,
    record_offset bigint  NOT NULL,
    cause         text    NOT NULL,
    PRIMARY KEY (topic, partition, record_offset)
);
CREATE TABLE nocturne_v1.refused_counts (
    cause text   PRIMARY KEY,
    count bigint NOT NULL
);
