// Package wire is docs/spec/encoding.md: hash inputs, Avro, JSON, printed forms, keys.
package wire

import (
	"crypto/sha256"
	"encoding/binary"
)

// Hash is a SHA-256 hash, or the id of a key.
type Hash [32]byte

// ID is 128 bits, printed as a UUID.
type ID [16]byte

// IntegerMax is the largest integer that stands in a line: 2^53−1.
const IntegerMax = 1<<53 - 1

// U32 is x as four bytes, big-endian.
func U32(x int64) []byte { return binary.BigEndian.AppendUint32(nil, uint32(x)) }

// U64 is x as eight bytes, big-endian.
func U64(x int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(x)) }

// Variable is x after its length.
func Variable(x []byte) []byte { return append(U32(int64(len(x))), x...) }

// Optional is x after a byte that says whether it is there: null is not empty.
func Optional(x *[]byte) []byte {
	if x == nil {
		return []byte{0}
	}
	return append([]byte{1}, Variable(*x)...)
}

func domain(tag string) []byte { return append([]byte{byte(len(tag))}, tag...) }

// Sum is the SHA-256 of the tag's domain and the parts.
func Sum(tag string, parts ...[]byte) Hash {
	h := sha256.New()
	h.Write(domain(tag))
	for _, part := range parts {
		h.Write(part)
	}
	return Hash(h.Sum(nil))
}

// SessionKey is the key of a session's leaf, and the previous hash of its first event.
func SessionKey(ledger Hash, session string) Hash {
	return Sum("nocturne/session/v1", ledger[:], Variable([]byte(session)))
}

// EventID is the id of the event at index of a command.
func EventID(ledger, command Hash, index int64) ID {
	sum := Sum("nocturne/event-id/v1", ledger[:], command[:], U32(index))
	id := ID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}
