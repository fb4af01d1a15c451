package tree

import (
	"crypto/sha256"
	"testing"

	"nocturne.example/verifier/internal/vectors"
	"nocturne.example/verifier/internal/wire"
)

func hash(t *testing.T, text string) wire.Hash {
	h, err := wire.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestMerkleVectors(t *testing.T) {
	var v struct {
		Roots     []string // of the leaves 00, 01, 02 …
		Inclusion []struct {
			Size, Index uint64
			Path        []string
		}
	}
	vectors.Load(t, "merkle", &v)
	var f Frontier
	for n, want := range v.Roots {
		if got := f.Root().String(); got != want {
			t.Errorf("root of %d leaves: %s", n, got)
		}
		f.Append([]byte{byte(n)})
	}
	for _, x := range v.Inclusion {
		var path []wire.Hash
		for _, text := range x.Path {
			path = append(path, hash(t, text))
		}
		root, err := RootFromPath([]byte{byte(x.Index)}, x.Index, x.Size, path)
		if err != nil || root.String() != v.Roots[x.Size] {
			t.Errorf("leaf %d of %d: %s, %v", x.Index, x.Size, root, err)
		}
		if _, err := RootFromPath(nil, x.Index, x.Size, append(path, wire.Hash{})); err == nil {
			t.Errorf("leaf %d of %d: a longer path is accepted", x.Index, x.Size)
		}
		if _, err := RootFromPath(nil, x.Size, x.Size, path); err == nil {
			t.Errorf("leaf %d of %d is accepted", x.Size, x.Size)
		}
	}
}

func TestEveryLeafHasItsPath(t *testing.T) {
	var paths func(leaves [][]byte) (wire.Hash, [][]wire.Hash)
	paths = func(leaves [][]byte) (wire.Hash, [][]wire.Hash) { // RFC 6962 §2.1, word by word
		if len(leaves) == 1 {
			return leaf(leaves[0]), [][]wire.Hash{nil}
		}
		k := 1
		for 2*k < len(leaves) {
			k *= 2
		}
		left, leftPaths := paths(leaves[:k])
		right, rightPaths := paths(leaves[k:])
		for i := range leftPaths {
			leftPaths[i] = append(leftPaths[i], right)
		}
		for i := range rightPaths {
			rightPaths[i] = append(rightPaths[i], left)
		}
		return node(left, right), append(leftPaths, rightPaths...)
	}
	var f Frontier
	var leaves [][]byte
	for n := 1; n <= 70; n++ {
		leaves = append(leaves, []byte{byte(n), 7})
		f.Append(leaves[n-1])
		root, all := paths(leaves)
		if f.Root() != root {
			t.Fatalf("root of %d leaves", n)
		}
		for i, path := range all {
			if got, err := RootFromPath(leaves[i], uint64(i), uint64(n), path); err != nil || got != root {
				t.Fatalf("leaf %d of %d: %v", i, n, err)
			}
		}
	}
}

func TestSparseTreeVectors(t *testing.T) {
	type pair struct{ Key, Value vectors.Hex }
	var v struct {
		Roots  []string
		Proofs []struct {
			Key      vectors.Hex
			Siblings []vectors.Hex
			Leaf     *pair
			Present  bool
		}
	}
	vectors.Load(t, "sparse_tree", &v)
	root := hash(t, v.Roots[len(v.Roots)-1]) // of all pairs
	for _, x := range v.Proofs {
		key := wire.Hash(x.Key)
		var siblings []wire.Hash
		for _, s := range x.Siblings {
			siblings = append(siblings, wire.Hash(s))
		}
		var end *Leaf
		if x.Leaf != nil {
			end = &Leaf{wire.Hash(x.Leaf.Key), x.Leaf.Value}
		}
		if got, err := RootFromProof(key, siblings, end); err != nil || got != root {
			t.Errorf("%x: %s, %v", key, got, err)
		}
		if present := end != nil && end.Key == key; present != x.Present {
			t.Errorf("%x: present %v", key, present)
		}
		longer := append(siblings, wire.Hash{})
		if _, err := RootFromProof(key, longer, end); err == nil {
			t.Errorf("%x: a proof with an empty last sibling is accepted", key)
		}
		if end != nil {
			end.Key[0] ^= 0x80
			if _, err := RootFromProof(key, siblings, end); err == nil {
				t.Errorf("%x: a leaf that is not on its way is accepted", key)
			}
		}
	}
	full := make([]wire.Hash, SiblingsMax)
	full[SiblingsMax-1] = sha256.Sum256(nil)
	if _, err := RootFromProof(wire.Hash{}, full, nil); err == nil {
		t.Error("nothing at the end of 256 siblings is accepted")
	}
}
