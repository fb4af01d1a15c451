// Package ledger holds the records of docs/spec/ledger.md, blocks.md and consensus.md §2.
package ledger

import (
	"errors"
	"fmt"
	"math"

	"nocturne.example/verifier/internal/wire"
)

const (
	genesisBytesMax = 4 << 20
	blockBytesMax   = 7 << 20 // the most that a genesis may allow
)

// Validator is a member of the validator set.
type Validator struct {
	Key        wire.Key
	Possession []wire.Signature
}

// Genesis is record 0 of a ledger.
type Genesis struct {
	FormatVersion, RulesVersion int64
	Nonce                       wire.Hash
	Partitions, EpochLength     int64
	CommandBytesMax             int64
	RecordBytesMax              int64
	CommandEventsMax            int64
	RangeRecordsMax             int64
	BlockBytesMax               int64
	IDWindow, ClockBoundMs      int64
	Validators                  []Validator
	Authority                   wire.Key
	AuthorityPossession         []wire.Signature
	Anchors, Operators          []wire.Key
	Threshold                   int64
	Kinds                       []KindEntry
	OpenPolicy                  []OpenRule
	Checkpoint                  bool
	Witnesses                   []wire.Key
	WitnessThreshold            int64
	Stores                      []string
	Strict                      bool
}

// KindEntry is a session kind that the ledger accepts.
type KindEntry struct {
	Kind     string
	Version  int64
	CodeHash wire.Hash
}

// OpenRule says who may open what.
type OpenRule struct {
	Author       *wire.Hash
	Kind, Prefix string
}

// Fields names the fields of a Genesis.
func (g *Genesis) Fields(c *wire.Codec) {
	c.Long(&g.FormatVersion)
	c.Long(&g.RulesVersion)
	c.Fixed(g.Nonce[:])
	for _, number := range []*int64{
		&g.Partitions, &g.EpochLength, &g.CommandBytesMax, &g.RecordBytesMax, &g.CommandEventsMax,
		&g.RangeRecordsMax, &g.BlockBytesMax, &g.IDWindow, &g.ClockBoundMs,
	} {
		c.Long(number)
	}
	wire.Array(c, &g.Validators, func(v *Validator) {
		c.Key(&v.Key)
		c.Signatures(&v.Possession)
	})
	c.Key(&g.Authority)
	c.Signatures(&g.AuthorityPossession)
	wire.Array(c, &g.Anchors, c.Key)
	wire.Array(c, &g.Operators, c.Key)
	c.Long(&g.Threshold)
	wire.Array(c, &g.Kinds, func(k *KindEntry) {
		c.String(&k.Kind)
		c.Long(&k.Version)
		c.Fixed(k.CodeHash[:])
	})
	wire.Array(c, &g.OpenPolicy, func(o *OpenRule) {
		wire.Nullable(c, &o.Author, func(h *wire.Hash) { c.Fixed(h[:]) })
		c.String(&o.Kind)
		c.String(&o.Prefix)
	})
	c.Bool(&g.Checkpoint)
	wire.Array(c, &g.Witnesses, c.Key)
	c.Long(&g.WitnessThreshold)
	wire.Array(c, &g.Stores, c.String)
	c.Bool(&g.Strict)
}

// Founding is a genesis that was found well-formed, and what follows from it.
type Founding struct {
	Genesis
	LedgerID wire.Hash
}

// ReadGenesis reads and checks Genesis bytes.
func ReadGenesis(b []byte) (*Founding, error) {
	f := &Founding{LedgerID: wire.Sum("nocturne/genesis/v1", wire.Variable(b))}
	if err := wire.Decode(b, genesisBytesMax, &f.Genesis); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

// Quorum is the number of votes that commit, of n validators.
func Quorum(n int) int { return (n+(n-1)/3)/2 + 1 }

func (g *Genesis) check() error {
	if g.FormatVersion != 1 || g.RulesVersion != 1 {
		return errors.New("expected format and rules version 1")
	}
	if len(g.Validators) == 0 {
		return errors.New("expected at least one validator")
	}
	for i, v := range g.Validators {
		if err := possessed(v.Key, v.Possession); err != nil {
			return fmt.Errorf("validator %d: %w", i, err)
		}
	}
	if err := possessed(g.Authority, g.AuthorityPossession); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	validators := make([]wire.Key, 0, len(g.Validators))
	for _, v := range g.Validators {
		validators = append(validators, v.Key)
	}
	for name, keys := range map[string][]wire.Key{
		"validators": validators, "anchors": g.Anchors, "operators": g.Operators, "witnesses": g.Witnesses,
	} {
		if err := distinct(keys); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if g.Threshold < 1 || g.Threshold > int64(len(g.Operators)) {
		return errors.New("the threshold is not that of its operators")
	}
	if g.WitnessThreshold < 0 || g.WitnessThreshold > int64(len(g.Witnesses)) {
		return errors.New("the witness threshold is not that of its witnesses")
	}
	if err := g.checkKinds(); err != nil {
		return err
	}
	switch {
	case g.Partitions < 1 || g.Partitions > 256, g.CommandBytesMax < 1,
		g.CommandBytesMax > g.RecordBytesMax, g.RecordBytesMax > g.BlockBytesMax/2,
		g.BlockBytesMax > blockBytesMax, g.CommandEventsMax > blockBytesMax,
		min(g.EpochLength, g.CommandEventsMax, g.RangeRecordsMax, g.IDWindow) < 1, g.ClockBoundMs < 0:
		return errors.New("a limit is out of its bounds")
	case g.RecordBytesMax+g.CommandBytesMax+512*g.CommandEventsMax+64*g.Partitions+4096 > g.BlockBytesMax:
		return errors.New("its largest record does not fit a block")
	}
	return nil
}

// distinct says why the keys are not valid ones, each once.
func distinct(keys []wire.Key) error {
	seen := map[wire.Hash]bool{}
	for _, key := range keys {
		if err := key.Check(); err != nil {
			return err
		}
		if seen[key.ID()] {
			return errors.New("a key stands twice")
		}
		seen[key.ID()] = true
	}
	return nil
}

func (g *Genesis) checkKinds() error {
	type named struct {
		kind    string
		version int64
	}
	seen := map[named]bool{}
	for _, k := range g.Kinds {
		name := named{k.Kind, k.Version}
		if !wire.IsTypeName(k.Kind) || k.Version < 1 || k.Version > math.MaxInt32 || seen[name] {
			return fmt.Errorf("kind %q in version %d: no name, no version, or twice", k.Kind, k.Version)
		}
		seen[name] = true
	}
	for _, rule := range g.OpenPolicy {
		if rule.Kind != "" && !wire.IsTypeName(rule.Kind) {
			return fmt.Errorf("open policy: %q is no kind", rule.Kind)
		}
	}
	return nil
}

func possessed(key wire.Key, possession []wire.Signature) error {
	if err := key.Check(); err != nil {
		return err
	}
	id := key.ID()
	if !key.Verify("nocturne/possession/v1", id[:], possession) {
		return errors.New("its proof of possession does not verify")
	}
	return nil
}
