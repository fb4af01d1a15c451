-- Receipts of authenticated authors, found without passing the claimed ones: those name whatever
-- session they like, and anybody may cause any number of them.
CREATE INDEX receipts_authenticated
    ON nocturne_v1.receipts (log_epoch, partition, record_offset) WHERE NOT claimed;
CREATE INDEX receipts_authenticated_session
    ON nocturne_v1.receipts (session, log_epoch, partition, record_offset) WHERE NOT claimed;
CREATE INDEX receipts_authenticated_home
    ON nocturne_v1.receipts (home, log_epoch, partition, record_offset) WHERE NOT claimed;
