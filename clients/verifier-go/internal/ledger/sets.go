package ledger

import (
	"errors"
	"fmt"

	"nocturne.example/verifier/internal/wire"
)

// ValidatorsMax is the most validators of a set that the operators decide.
const ValidatorsMax = 31

// ValidatorSet is the validators of an epoch, in their order.
type ValidatorSet struct {
	Keys   []wire.Key
	Hash   wire.Hash
	Quorum int
}

// SetOf is the set of these keys.
func SetOf(keys []wire.Key) *ValidatorSet {
	b := wire.U32(int64(len(keys)))
	for _, key := range keys {
		b = append(b, wire.Variable(key.Bytes())...)
	}
	return &ValidatorSet{keys, wire.Sum("nocturne/validators/v1", b), Quorum(len(keys))}
}

// CheckKeys says why the keys cannot be the validators of an epoch.
func CheckKeys(keys []wire.Key) error {
	if len(keys) < 1 || len(keys) > ValidatorsMax {
		return fmt.Errorf("validators: expected 1 to %d, got %d", ValidatorsMax, len(keys))
	}
	for _, key := range keys {
		if key.Check() != nil {
			return errors.New("validators: a key is not one")
		}
	}
	if distinct(keys) != nil {
		return errors.New("validators: a key stands twice")
	}
	return nil
}

// Sets are the validators of all epochs as far as they are proved, first epochs rising.
type Sets struct {
	epochLength int64
	first       []int64
	sets        []*ValidatorSet
}

// Sets are those of the genesis alone.
func (f *Founding) Sets() *Sets {
	keys := make([]wire.Key, 0, len(f.Validators))
	for _, v := range f.Validators {
		keys = append(keys, v.Key)
	}
	return &Sets{f.EpochLength, []int64{0}, []*ValidatorSet{SetOf(keys)}}
}

// Add takes a set that certifies from an epoch on, which is later than those that are there.
func (s *Sets) Add(first int64, set *ValidatorSet) {
	s.first, s.sets = append(s.first, first), append(s.sets, set)
}

// Count is how many there are.
func (s *Sets) Count() int { return len(s.sets) }

// Newest is the first epoch of the last one.
func (s *Sets) Newest() int64 { return s.first[len(s.first)-1] }

// IsEnd says whether a height is the last of its epoch.
func (s *Sets) IsEnd(height int64) bool { return height%s.epochLength == 0 }

// OfBlock is the set that has to certify a block. The error says why its header is not one of its height.
func (s *Sets) OfBlock(b *BlockHeader) (*ValidatorSet, error) {
	number := (b.Height - 1) / s.epochLength
	if b.Epoch != (Epoch{0, number}) {
		return nil, fmt.Errorf("it says epoch %d (recovery %d), its height is of epoch %d",
			b.Epoch.Number, b.Epoch.Recovery, number)
	}
	i := len(s.sets) - 1
	for s.first[i] > number {
		i--
	}
	if b.ValidatorSetHash != s.sets[i].Hash {
		return nil, fmt.Errorf("of another validator set than that of epoch %d", number)
	}
	return s.sets[i], nil
}
