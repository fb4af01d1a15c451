// Package tree holds the two trees of docs/spec/blocks.md: RFC 6962 (§3) and the state tree (§5).
package tree

import (
	"crypto/sha256"
	"fmt"
	"math/bits"

	"nocturne.example/verifier/internal/wire"
)

func leaf(data []byte) wire.Hash { return sha256.Sum256(append([]byte{0}, data...)) }

func node(left, right wire.Hash) wire.Hash {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// PathLength is the number of siblings of leaf index among size leaves: those on the levels that it
// shares with the last leaf, and above them one for each left subtree that is complete.
func PathLength(index, size uint64) int {
	inner := bits.Len64(index ^ (size - 1))
	return inner + bits.OnesCount64(index>>inner)
}

// RootFromPath is the root of size leaves, of which data is the one at index, siblings from below.
func RootFromPath(data []byte, index, size uint64, path []wire.Hash) (wire.Hash, error) {
	if index >= size {
		return wire.Hash{}, fmt.Errorf("inclusion path: there is no leaf %d of %d", index, size)
	}
	if expected := PathLength(index, size); len(path) != expected {
		return wire.Hash{}, fmt.Errorf("inclusion path of leaf %d of %d: expected %d hashes, got %d",
			index, size, expected, len(path))
	}
	inner := bits.Len64(index ^ (size - 1))
	root := leaf(data)
	for i, sibling := range path {
		if i >= inner || index>>i&1 == 1 {
			root = node(sibling, root)
		} else {
			root = node(root, sibling)
		}
	}
	return root, nil
}

// Frontier makes the root of leaves that come one by one; it keeps one hash a level.
type Frontier struct {
	Size   int64
	levels []wire.Hash // roots of the perfect subtrees, largest first
}

// Append adds a leaf.
func (f *Frontier) Append(data []byte) {
	root := leaf(data)
	for size := f.Size; size&1 == 1; size >>= 1 {
		last := len(f.levels) - 1
		root = node(f.levels[last], root)
		f.levels = f.levels[:last]
	}
	f.levels = append(f.levels, root)
	f.Size++
}

// Root is the root of the leaves so far.
func (f *Frontier) Root() wire.Hash {
	if f.Size == 0 {
		return sha256.Sum256(nil)
	}
	root := f.levels[len(f.levels)-1]
	for i := len(f.levels) - 2; i >= 0; i-- {
		root = node(f.levels[i], root)
	}
	return root
}
