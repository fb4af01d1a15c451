-- Control records that change the validators, by the block that carries them: who certifies which
-- epoch follows from them and genesis.
CREATE TABLE nocturne_v1.validator_changes (
    height bigint  NOT NULL,
    number integer NOT NULL,
    record bytea   NOT NULL,
    PRIMARY KEY (height, number)
);
