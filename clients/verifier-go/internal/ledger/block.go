package ledger

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"nocturne.example/verifier/internal/wire"
)

const (
	headerBytesMax = 1 << 20
	proofBytesMax  = 4 << 20
	headersMax     = 4096
	partitionsMax  = 256
)

const (
	ledgerBlock = iota
	tailBlock
)

// Epoch is a recovery's number and a number within it.
type Epoch struct{ Recovery, Number int64 }

func (e *Epoch) fields(c *wire.Codec) {
	c.Long(&e.Recovery)
	c.Long(&e.Number)
}

// Range is the offsets from ≤ o < to of a partition.
type Range struct {
	LogEpoch  int64
	TopicUUID wire.ID
	Partition int64
	From, To  int64
	LogHash   wire.Hash
}

// BlockHeader is the hashed part of a block.
type BlockHeader struct {
	Kind, FormatVersion, RulesVersion      int64
	LedgerID                               wire.Hash
	Epoch                                  Epoch
	ValidatorSetHash, NextValidatorSetHash wire.Hash
	View, Height                           int64
	ParentDigest                           wire.Hash
	ParentView                             int64
	Time                                   wire.Time
	Ranges                                 []Range
	ControlHash                            wire.Hash
	RecordCount                            int64
	DispositionsRoot, StateRoot            wire.Hash
	LeaderProof                            []byte
}

// Fields names the fields of a BlockHeader.
func (b *BlockHeader) Fields(c *wire.Codec) {
	c.Long(&b.Kind)
	c.Long(&b.FormatVersion)
	c.Long(&b.RulesVersion)
	c.Fixed(b.LedgerID[:])
	b.Epoch.fields(c)
	c.Fixed(b.ValidatorSetHash[:])
	c.Fixed(b.NextValidatorSetHash[:])
	c.Long(&b.View)
	c.Long(&b.Height)
	c.Fixed(b.ParentDigest[:])
	c.Long(&b.ParentView)
	c.Long((*int64)(&b.Time))
	wire.Array(c, &b.Ranges, func(r *Range) {
		c.Long(&r.LogEpoch)
		c.Fixed(r.TopicUUID[:])
		c.Long(&r.Partition)
		c.Long(&r.From)
		c.Long(&r.To)
		c.Fixed(r.LogHash[:])
	})
	c.Fixed(b.ControlHash[:])
	c.Long(&b.RecordCount)
	c.Fixed(b.DispositionsRoot[:])
	c.Fixed(b.StateRoot[:])
	c.Bytes(&b.LeaderProof)
}

// ReadHeader reads BlockHeader bytes.
func ReadHeader(b []byte) (*BlockHeader, error) {
	h := &BlockHeader{}
	err := wire.Decode(b, headerBytesMax, h)
	if err == nil {
		err = h.wellFormed()
	}
	return h, err
}

func (b *BlockHeader) wellFormed() error {
	if b.Kind != ledgerBlock && b.Kind != tailBlock {
		return errors.New("block header: its kind is unknown")
	}
	if min(b.Height, b.View) < 1 || b.Height > wire.IntegerMax ||
		min(b.Epoch.Recovery, b.Epoch.Number, b.ParentView) < 0 || b.Time < 0 || b.Time > wire.TimeMax {
		return errors.New("block header: its height, time, view or epoch is out of its bounds")
	}
	var count int64
	partition := int64(-1)
	for _, r := range b.Ranges {
		if r.Partition <= partition || r.Partition >= partitionsMax || r.LogEpoch < 1 ||
			r.LogEpoch > math.MaxInt32 || r.From < 0 || r.From >= r.To || r.To > wire.IntegerMax {
			return errors.New("block header: its ranges are not one a partition, rising, of at least one record")
		}
		partition = r.Partition
		count += r.To - r.From
	}
	if b.RecordCount != count {
		return fmt.Errorf("block header: it counts %d records, its ranges are of %d", b.RecordCount, count)
	}
	return nil
}

// Digest is the digest of the block with these BlockHeader bytes.
func Digest(header []byte) wire.Hash { return wire.Sum("nocturne/block/v1", wire.Variable(header)) }

// Check says why this is not a block of the ledger.
func (b *BlockHeader) Check(f *Founding) error {
	switch {
	case b.LedgerID != f.LedgerID:
		return fmt.Errorf("it is of ledger %s", b.LedgerID)
	case b.FormatVersion != 1 || b.RulesVersion != 1:
		return errors.New("its format or rules version is not 1")
	case b.Kind != ledgerBlock:
		return errors.New("a tail block is no ledger block")
	}
	return nil
}

// LeafIndex is the index of a position's leaf in the disposition tree.
func (b *BlockHeader) LeafIndex(p Position) (int64, bool) {
	var before int64
	for _, r := range b.Ranges {
		if r.LogEpoch == p.LogEpoch && r.Partition == p.Partition && r.From <= p.Offset && p.Offset < r.To {
			return before + p.Offset - r.From, true
		}
		before += r.To - r.From
	}
	return 0, false
}

// Vote is one validator's part of a certificate.
type Vote struct {
	Validator  int64
	Signatures []wire.Signature
}

// CommitProof shows that a quorum finalized a block or a descendant of it.
type CommitProof struct {
	Kind             int64
	Epoch            Epoch
	ValidatorSetHash wire.Hash
	View             int64
	Digest           wire.Hash
	Votes            []Vote
	Headers          [][]byte // from the block's child on
}

// Fields names the fields of a CommitProof.
func (p *CommitProof) Fields(c *wire.Codec) {
	c.Long(&p.Kind)
	p.Epoch.fields(c)
	c.Fixed(p.ValidatorSetHash[:])
	c.Long(&p.View)
	c.Fixed(p.Digest[:])
	wire.Array(c, &p.Votes, func(v *Vote) {
		c.Long(&v.Validator)
		c.Signatures(&v.Signatures)
	})
	wire.Array(c, &p.Headers, c.Bytes)
}

// ReadCommitProof reads CommitProof bytes.
func ReadCommitProof(b []byte) (*CommitProof, error) {
	proof := &CommitProof{}
	err := wire.Decode(b, proofBytesMax, proof)
	if err == nil && (proof.Kind < 1 || proof.Kind > finalize) {
		err = errors.New("certificate: its kind is unknown")
	}
	if err == nil && (min(proof.Epoch.Recovery, proof.Epoch.Number) < 0 || proof.View < 1) {
		err = errors.New("certificate: its epoch or view is out of its bounds")
	}
	return proof, err
}

const finalize = 3

// Check says why the proof does not commit the block with this header, of this digest, by the
// votes of the set of its epoch.
func (p *CommitProof) Check(f *Founding, set *ValidatorSet, block *BlockHeader, digest wire.Hash) error {
	if p.Kind != finalize {
		return errors.New("commit proof: only a finalization commits")
	}
	if len(p.Headers) > headersMax {
		return fmt.Errorf("commit proof: expected at most %d headers, got %d", headersMax, len(p.Headers))
	}
	last := digest
	header := block
	for _, encoded := range p.Headers {
		child, err := ReadHeader(encoded)
		if err != nil {
			return fmt.Errorf("commit proof: a header: %w", err)
		}
		if child.ParentDigest != last {
			return errors.New("commit proof: its headers do not lead to the block")
		}
		if child.LedgerID != f.LedgerID || child.FormatVersion != 1 || child.RulesVersion != 1 {
			return errors.New("commit proof: a header is of another ledger or version")
		}
		height := header.Height // a tail block's is that of the last ledger block
		if child.Kind == ledgerBlock {
			height++
		}
		if child.Height != height || header.Kind == tailBlock && child.Kind == ledgerBlock {
			return fmt.Errorf("commit proof: a header of height %d after %d", child.Height, header.Height)
		}
		header, last = child, Digest(encoded)
	}
	switch {
	case p.Digest != last:
		return errors.New("commit proof: of another block")
	case p.Epoch != header.Epoch || p.ValidatorSetHash != header.ValidatorSetHash || p.View != header.View:
		return errors.New("certificate: of another epoch, validator set or view than its block")
	case p.Epoch != block.Epoch || p.ValidatorSetHash != block.ValidatorSetHash:
		return errors.New("commit proof: a finalization of another epoch than its block's")
	case p.ValidatorSetHash != set.Hash:
		return errors.New("certificate: of another validator set")
	case len(p.Votes) != set.Quorum:
		return fmt.Errorf("certificate: expected %d votes, got %d", set.Quorum, len(p.Votes))
	}
	message := slices.Concat([]byte{finalize}, f.LedgerID[:], wire.U64(p.Epoch.Recovery),
		wire.U64(p.Epoch.Number), p.ValidatorSetHash[:], wire.U64(p.View), p.Digest[:])
	before := int64(-1)
	for _, vote := range p.Votes {
		if vote.Validator <= before || vote.Validator >= int64(len(set.Keys)) {
			return errors.New("certificate: its validators are not rising or not of the set")
		}
		before = vote.Validator
		if !set.Keys[vote.Validator].Verify("nocturne/vote/v1", message, vote.Signatures) {
			return fmt.Errorf("certificate: the vote of validator %d does not verify", vote.Validator)
		}
	}
	return nil
}

// Signed is the message that the authority signs of an event or a receipt.
func Signed(hash wire.Hash, time wire.Time, height int64) []byte {
	return slices.Concat(hash[:], wire.U64(int64(time)), wire.U64(height))
}
