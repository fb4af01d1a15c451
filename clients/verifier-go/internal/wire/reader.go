package wire

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
)

// Node is a canonical JSON value and where it stands in its line.
type Node struct {
	path string
	json JSON
}

// Reader reads the values of a line and keeps the first complaint.
type Reader struct{ Err error }

// Members are those of an object.
type Members struct {
	path string
	of   map[string]Node
}

func (r *Reader) fail(n Node, why string) {
	if r.Err == nil {
		r.Err = errors.New(why)
		if n.path != "" {
			r.Err = fmt.Errorf("%s: %s, got %s", n.path, why, brief(n.json, 0))
		}
	}
}

// Check complains of a value when there is an error.
func (r *Reader) Check(n Node, err error) {
	if err != nil {
		r.fail(n, err.Error())
	}
}

// Line begins to read a text, which must be canonical JSON.
func (r *Reader) Line(text []byte, depth int) Members {
	if err := Canonical(text, depth); err != nil {
		r.Err = err
		return Members{}
	}
	return r.Object(Node{json: text})
}

// Object gives the members of an object; what should not be there is found by printing it again.
func (r *Reader) Object(n Node) Members {
	const membersMax = 64
	items, ok := n.json.items('{', membersMax)
	if !ok {
		r.fail(n, "expected an object of few members")
	}
	members := Members{n.path, make(map[string]Node, len(items))}
	for _, it := range items {
		members.of[it.name] = Node{join(n.path, it.name), it.value}
	}
	return members
}

// Get gives a member that must be there.
func (r *Reader) Get(m Members, name string) Node {
	n, ok := m.of[name]
	if !ok && r.Err == nil {
		r.Err = fmt.Errorf("%s: expected this member, got none", join(m.path, name))
	}
	return n
}

// Has says whether there is such a member.
func (m Members) Has(name string) bool {
	_, ok := m.of[name]
	return ok
}

// IsNull says whether the value is null.
func (n Node) IsNull() bool { return string(n.json) == "null" }

// JSON is the text of the value.
func (n Node) JSON() JSON { return n.json }

// Items gives the items of an array, at most max.
func (r *Reader) Items(n Node, max int) []Node {
	items, ok := n.json.items('[', max)
	if !ok {
		r.fail(n, fmt.Sprintf("expected an array of at most %d items", max))
	}
	nodes := make([]Node, len(items))
	for i, it := range items {
		nodes[i] = Node{fmt.Sprintf("%s[%d]", n.path, i), it.value}
	}
	return nodes
}

// Text reads a string.
func (r *Reader) Text(n Node) string {
	if len(n.json) < 2 || n.json[0] != '"' {
		r.fail(n, "expected a string")
		return ""
	}
	return unquote(n.json)
}

// Int reads an integer from 0 to 2^53−1.
func (r *Reader) Int(n Node) int64 {
	v, err := strconv.ParseInt(string(n.json[:min(len(n.json), 20)]), 10, 64)
	if err != nil || v < 0 || v > IntegerMax {
		r.fail(n, "expected an integer from 0 to 2^53−1")
		return 0
	}
	return v
}

// IntOrNull reads an integer or null.
func (r *Reader) IntOrNull(n Node) *int64 {
	if n.IsNull() {
		return nil
	}
	v := r.Int(n)
	return &v
}

// Bool reads a boolean.
func (r *Reader) Bool(n Node) bool {
	yes := string(n.json) == "true"
	if !yes && string(n.json) != "false" {
		r.fail(n, "expected true or false")
	}
	return yes
}

// Hash reads a hash.
func (r *Reader) Hash(n Node) Hash {
	h, err := ParseHash(r.Text(n))
	r.Check(n, err)
	return h
}

// Hashes reads an array of hashes.
func (r *Reader) Hashes(n Node, max int) []Hash {
	nodes := r.Items(n, max)
	hashes := make([]Hash, len(nodes))
	for i := range nodes {
		hashes[i] = r.Hash(nodes[i])
	}
	return hashes
}

// ID reads an id.
func (r *Reader) ID(n Node) ID {
	id, err := parseID(r.Text(n))
	r.Check(n, err)
	return id
}

// Time reads a time.
func (r *Reader) Time(n Node) Time {
	t, err := parseTime(r.Text(n))
	r.Check(n, err)
	return t
}

// Base64 reads bytes.
func (r *Reader) Base64(n Node) []byte {
	b, err := parseBase64(r.Text(n))
	r.Check(n, err)
	return b
}

// PublicKey reads a public key.
func (r *Reader) PublicKey(n Node) PublicKey {
	b, err := parseHex(r.Text(n), "ed25519-", ed25519.PublicKeySize)
	r.Check(n, err)
	return PublicKey{Ed25519, b}
}

// Signature reads a signature; whose it is stands beside it.
func (r *Reader) Signature(n Node) Signature {
	b, err := parseHex(r.Text(n), "ed25519-", ed25519.SignatureSize)
	r.Check(n, err)
	return Signature{Suite: Ed25519, Bytes: b}
}
