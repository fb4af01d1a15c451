package export

import (
	"errors"
	"strings"

	"nocturne.example/verifier/internal/ledger"
	"nocturne.example/verifier/internal/wire"
)

const (
	payloadDepthMax = 64
	suitesMax       = 8       // more than there are, fewer than would cost
	draftsMax       = 1 << 20 // no fewer than fit into a line
	pathMax         = 64
)

// signature is one suite's signature of the authority, beside the key that it is said to be of.
type signature struct {
	key   wire.PublicKey
	bytes []byte
}

func readSignatures(r *wire.Reader, n wire.Node) []signature {
	var list []signature
	for _, item := range r.Items(n, suitesMax) {
		m := r.Object(item)
		list = append(list, signature{
			r.PublicKey(r.Get(m, "publicKey")), r.Signature(r.Get(m, "signature")).Bytes,
		})
	}
	return list
}

// printSignatures gives the list, and the first suite's key and signature.
func printSignatures(list []signature) (all, key, first any) {
	all = wire.List(list, func(s signature) any {
		return wire.Object{"publicKey": s.key, "signature": wire.Signature{Bytes: s.bytes}}
	})
	if len(list) > 0 {
		key, first = list[0].key, wire.Signature{Bytes: list[0].bytes}
	}
	return all, key, first
}

// check says why the list is not the authority's signature.
func check(authority wire.Key, tag string, message []byte, list []signature) error {
	if len(list) == 0 {
		return errors.New("the authority has not signed it")
	}
	var key wire.Key
	var signatures []wire.Signature
	for _, s := range list {
		key = append(key, s.key)
		signatures = append(signatures, wire.Signature{
			Suite: s.key.Suite, KeyID: authority.ID(), Bytes: s.bytes,
		})
	}
	if !key.Equal(authority) {
		return errors.New("signed by another key than the authority's")
	}
	if !authority.Verify(tag, message, signatures) {
		return errors.New("the authority's signature does not verify")
	}
	return nil
}

func readPosition(r *wire.Reader, n wire.Node) ledger.Position {
	m := r.Object(n)
	return ledger.Position{
		LogEpoch: r.Int(r.Get(m, "logEpoch")), Partition: r.Int(r.Get(m, "partition")),
		Offset: r.Int(r.Get(m, "offset")),
	}
}

func printPosition(p *ledger.Position) any {
	if p == nil {
		return nil
	}
	return wire.Object{"logEpoch": p.LogEpoch, "offset": p.Offset, "partition": p.Partition}
}

func printOpening(o *ledger.Opening) any {
	if o == nil {
		return nil
	}
	return wire.Object{"kind": o.Kind, "version": o.Version}
}

// readKeys reads the public keys of one key.
func readKeys(r *wire.Reader, list wire.Node) (key wire.Key) {
	for _, item := range r.Items(list, suitesMax) {
		key = append(key, r.PublicKey(item))
	}
	return key
}

func printKeys(key wire.Key) any {
	return wire.List(key, func(p wire.PublicKey) any { return p })
}

// signedCommand is a command and its author's signatures.
type signedCommand struct {
	ledger.Command
	hash       wire.Hash
	signatures []wire.Signature
}

func readCommand(r *wire.Reader, n wire.Node) *signedCommand {
	m := r.Object(n)
	c := &signedCommand{Command: ledger.Command{
		LedgerID: r.Hash(r.Get(m, "ledgerId")), Session: r.Text(r.Get(m, "sessionId")),
		Author: r.Hash(r.Get(m, "author")), CommandID: r.ID(r.Get(m, "commandId")),
		ExpectedSequence: r.IntOrNull(r.Get(m, "expectedSequence")),
		OccurredAt:       r.Time(r.Get(m, "occurredAt")),
	}}
	c.Key = readKeys(r, r.Get(m, "authorKeys"))
	if opening := r.Get(m, "opening"); !opening.IsNull() {
		o := r.Object(opening)
		c.Opening = &ledger.Opening{
			Kind: r.Text(r.Get(o, "kind")), Version: r.Int(r.Get(o, "version")),
		}
	}
	for _, item := range r.Items(r.Get(m, "events"), draftsMax) {
		d := r.Object(item)
		c.Events = append(c.Events, ledger.Draft{
			EventType: r.Text(r.Get(d, "eventType")), ContentType: r.Text(r.Get(d, "contentType")),
			PayloadHash: r.Hash(r.Get(d, "payloadHash")),
		})
	}
	for _, item := range r.Items(r.Get(m, "authorSignatures"), suitesMax) {
		s := r.Signature(item)
		s.KeyID = c.Key.ID()
		c.signatures = append(c.signatures, s)
	}
	if r.Err == nil {
		r.Check(n, c.Check())
	}
	c.hash = c.Hash()
	return c
}

func (c *signedCommand) printAuthor() any {
	return wire.List(c.signatures, func(s wire.Signature) any { return s })
}

func (c *signedCommand) print() wire.Object {
	return wire.Object{
		"commandHash": c.hash, "ledgerId": c.LedgerID, "author": c.Author, "sessionId": c.Session,
		"authorKeys": printKeys(c.Key), "commandId": c.CommandID,
		"expectedSequence": c.ExpectedSequence, "opening": printOpening(c.Opening),
		"occurredAt": c.OccurredAt, "authorSignatures": c.printAuthor(),
		"events": wire.List(c.Events, func(d ledger.Draft) any {
			return wire.Object{
				"contentType": d.ContentType, "eventType": d.EventType, "payloadHash": d.PayloadHash,
			}
		}),
	}
}

// event is an event of a line: its header follows from its command.
type event struct {
	ledger.EventHeader
	payload    []byte
	salt       wire.Hash
	signatures []signature
}

func (e *event) read(r *wire.Reader, m wire.Members) {
	if m.Has("payload") {
		e.payload = r.Get(m, "payload").JSON()
	} else {
		e.payload = r.Base64(r.Get(m, "payloadBase64"))
	}
	n := r.Get(m, "salt")
	if salt := r.Base64(n); len(salt) == len(e.salt) {
		e.salt = wire.Hash(salt)
	} else {
		r.Check(n, errors.New("expected a salt of 32 bytes"))
	}
	e.signatures = readSignatures(r, r.Get(m, "signatures"))
}

func (e *event) print(c *signedCommand, p *place) wire.Object {
	all, key, first := printSignatures(e.signatures)
	o := wire.Object{
		"eventId": e.EventID, "commandId": c.CommandID, "sessionId": e.Session,
		"eventType": e.Draft.EventType, "contentType": e.Draft.ContentType,
		"sequenceNumber": e.Sequence, "height": p.height, "index": e.Index,
		"timestamp": p.time, "occurredAt": e.OccurredAt, "salt": e.salt[:],
		"payloadHash": e.Draft.PayloadHash, "previousHash": e.PreviousHash, "eventHash": e.Hash(),
		"commandHash": e.CommandHash, "author": e.Author, "publicKey": key, "signature": first,
		"signatures": all, "authorKeys": printKeys(e.Key), "authorSignatures": c.printAuthor(),
		"opening": printOpening(e.Opening), "position": printPosition(&e.Position),
	}
	isJSON := e.Draft.ContentType == "application/json" || strings.HasSuffix(e.Draft.ContentType, "+json")
	if isJSON && wire.Canonical(e.payload, payloadDepthMax) == nil {
		o["payload"] = wire.JSON(e.payload)
	} else {
		o["payloadBase64"] = e.payload
	}
	return o
}
