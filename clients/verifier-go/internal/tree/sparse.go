package tree

import (
	"errors"
	"slices"

	"nocturne.example/verifier/internal/wire"
)

// SiblingsMax is the depth of the state tree.
const SiblingsMax = 256

// Leaf is what stands in the state tree under a key.
type Leaf struct {
	Key   wire.Hash
	Value []byte
}

func bit(key wire.Hash, level int) byte { return key[level/8] >> (7 - level%8) & 1 }

// RootFromProof is the root of the state tree in which end, or nothing, stands on the way of key
// below the siblings, which are given from the root down.
func RootFromProof(key wire.Hash, siblings []wire.Hash, end *Leaf) (wire.Hash, error) {
	d := len(siblings)
	switch {
	case d > SiblingsMax:
		return wire.Hash{}, errors.New("state proof: more than 256 siblings")
	case d > 0 && siblings[d-1] == wire.Hash{}:
		return wire.Hash{}, errors.New("state proof: its last sibling is empty")
	case d == SiblingsMax && end == nil:
		return wire.Hash{}, errors.New("state proof: nothing stands at its end")
	}
	var root wire.Hash
	if end != nil {
		for level := range siblings {
			if bit(end.Key, level) != bit(key, level) {
				return wire.Hash{}, errors.New("state proof: the leaf is not on the way of the key")
			}
		}
		root = leaf(slices.Concat(end.Key[:], end.Value))
	}
	for level := d - 1; level >= 0; level-- {
		if bit(key, level) == 1 {
			root = node(siblings[level], root)
		} else {
			root = node(root, siblings[level])
		}
	}
	return root, nil
}
