package ledger

import (
	"errors"
	"math"

	"nocturne.example/verifier/internal/wire"
)

// Position is where a record stands in the log.
type Position struct{ LogEpoch, Partition, Offset int64 }

// Fields names the fields of a Position.
func (p *Position) Fields(c *wire.Codec) {
	c.Long(&p.LogEpoch)
	c.Long(&p.Partition)
	c.Long(&p.Offset)
}

// Opening is the kind a session is opened with.
type Opening struct {
	Kind    string
	Version int64
}

func (o *Opening) fields(c *wire.Codec) {
	c.String(&o.Kind)
	c.Long(&o.Version)
}

// Draft is one event that the author asks for.
type Draft struct {
	EventType, ContentType string
	PayloadHash            wire.Hash
}

// Command is what an author signs.
type Command struct {
	LedgerID         wire.Hash
	Session          string
	Author           wire.Hash
	Key              wire.Key
	CommandID        wire.ID
	ExpectedSequence *int64
	Opening          *Opening
	OccurredAt       wire.Time
	Events           []Draft
}

// Fields names the fields of a Command.
func (m *Command) Fields(c *wire.Codec) {
	c.Fixed(m.LedgerID[:])
	c.String(&m.Session)
	c.Fixed(m.Author[:])
	c.Key(&m.Key)
	c.Fixed(m.CommandID[:])
	wire.Nullable(c, &m.ExpectedSequence, c.Long)
	wire.Nullable(c, &m.Opening, func(o *Opening) { o.fields(c) })
	c.Long((*int64)(&m.OccurredAt))
	wire.Array(c, &m.Events, func(d *Draft) {
		c.String(&d.EventType)
		c.String(&d.ContentType)
		c.Fixed(d.PayloadHash[:])
	})
}

// Hash is the command hash.
func (m *Command) Hash() wire.Hash {
	return wire.Sum("nocturne/command/v1", wire.Variable(wire.Encode(m)))
}

// Verify says whether the signatures are those of the command's key.
func (m *Command) Verify(signatures []wire.Signature) bool {
	hash := m.Hash()
	return m.Key.Verify("nocturne/command-signature/v1", hash[:], signatures)
}

// Check says why a command is not well-formed.
func (m *Command) Check() error {
	if err := m.Key.Check(); err != nil {
		return err
	}
	expected := m.ExpectedSequence
	switch {
	case !wire.IsSessionID(m.Session):
		return errors.New("expected a session id")
	case expected != nil && (*expected < 0 || *expected >= wire.IntegerMax):
		return errors.New("expected sequences are 0 to 2^53−2")
	case m.OccurredAt < 0 || m.OccurredAt > wire.TimeMax:
		return errors.New("expected a time of the author")
	case len(m.Events) == 0:
		return errors.New("expected at least one event")
	}
	for _, d := range m.Events {
		if !wire.IsTypeName(d.EventType) || !wire.IsContentType(d.ContentType) {
			return errors.New("expected an event type and a content type")
		}
	}
	if o := m.Opening; o != nil && (!wire.IsTypeName(o.Kind) || o.Version < 1 ||
		o.Version > math.MaxInt32 || expected != nil && *expected != 0) {
		return errors.New("an opening names a kind and a version and expects sequence 0")
	}
	return nil
}

// PayloadHash is the hash of a payload that stands in a command.
func PayloadHash(salt wire.Hash, payload []byte) wire.Hash {
	return wire.Sum("nocturne/payload/v1", salt[:], wire.Variable(payload))
}

// EventHeader is the hashed part of an event.
type EventHeader struct {
	LedgerID     wire.Hash
	Session      string
	Sequence     int64
	PreviousHash wire.Hash
	EventID      wire.ID
	CommandHash  wire.Hash
	Position     Position
	Index        int64
	Author       wire.Hash
	Key          wire.Key
	Draft        Draft
	OccurredAt   wire.Time
	Opening      *Opening
}

// Fields names the fields of an EventHeader.
func (e *EventHeader) Fields(c *wire.Codec) {
	c.Fixed(e.LedgerID[:])
	c.String(&e.Session)
	c.Long(&e.Sequence)
	c.Fixed(e.PreviousHash[:])
	c.Fixed(e.EventID[:])
	c.Fixed(e.CommandHash[:])
	e.Position.Fields(c)
	c.Long(&e.Index)
	c.Fixed(e.Author[:])
	c.Key(&e.Key)
	c.String(&e.Draft.EventType)
	c.String(&e.Draft.ContentType)
	c.Fixed(e.Draft.PayloadHash[:])
	c.Long((*int64)(&e.OccurredAt))
	wire.Nullable(c, &e.Opening, func(o *Opening) { o.fields(c) })
}

// Hash is the event hash.
func (e *EventHeader) Hash() wire.Hash {
	return wire.Sum("nocturne/event/v1", wire.Variable(wire.Encode(e)))
}

// Derive makes the events that a command becomes at a position, the first of them at sequence.
func Derive(m *Command, at Position, sequence int64, previous wire.Hash) []EventHeader {
	hash := m.Hash()
	headers := make([]EventHeader, len(m.Events))
	for i := range headers {
		headers[i] = EventHeader{
			LedgerID: m.LedgerID, Session: m.Session, Sequence: sequence + int64(i),
			PreviousHash: previous, EventID: wire.EventID(m.LedgerID, hash, int64(i)),
			CommandHash: hash, Position: at, Index: int64(i), Author: m.Author, Key: m.Key,
			Draft: m.Events[i], OccurredAt: m.OccurredAt,
		}
		if headers[i].Sequence == 1 {
			headers[i].Opening = m.Opening
		}
		previous = headers[i].Hash()
	}
	return headers
}

// Head is the last event of a session.
type Head struct {
	Sequence int64
	Hash     wire.Hash
}

// ReceiptHeader is the hashed part of a receipt.
type ReceiptHeader struct {
	LedgerID, CommandHash wire.Hash
	Reason                Reason
	ViolatedInvariant     string
	Session               string
	AttemptedSequence     *int64
	Claimed               bool
	Head                  *Head
	Position              Position
	FirstPosition         *Position
}

// Fields names the fields of a ReceiptHeader.
func (r *ReceiptHeader) Fields(c *wire.Codec) {
	c.Fixed(r.LedgerID[:])
	c.Fixed(r.CommandHash[:])
	c.Long((*int64)(&r.Reason))
	c.String(&r.ViolatedInvariant)
	c.String(&r.Session)
	wire.Nullable(c, &r.AttemptedSequence, c.Long)
	c.Bool(&r.Claimed)
	wire.Nullable(c, &r.Head, func(h *Head) {
		c.Long(&h.Sequence)
		c.Fixed(h.Hash[:])
	})
	r.Position.Fields(c)
	wire.Nullable(c, &r.FirstPosition, func(p *Position) { p.Fields(c) })
}

// Hash is the receipt hash.
func (r *ReceiptHeader) Hash() wire.Hash {
	return wire.Sum("nocturne/receipt/v1", wire.Variable(wire.Encode(r)))
}

// Home is the session whose receipt this is.
func (r *ReceiptHeader) Home() string {
	if r.Head != nil {
		return r.Session
	}
	return "~ledger"
}

// Reason is why a record became a receipt.
type Reason int64

// TooLarge is the reason whose record may be carried by nothing but its hash.
const TooLarge Reason = 2

var reasons = []struct{ name, paper string }{
	1: {"MALFORMED", "INVARIANT_VIOLATION"}, 2: {"TOO_LARGE", "INVARIANT_VIOLATION"},
	3: {"WRONG_PARTITION", "INVARIANT_VIOLATION"}, 4: {"SIGNATURE_INVALID", "SIGNATURE_INVALID"},
	5: {"UNKNOWN_AUTHOR", "SIGNATURE_INVALID"}, 6: {"SESSION_CLOSED", "INVARIANT_VIOLATION"},
	7: {"UNKNOWN_KIND", "INVARIANT_VIOLATION"}, 8: {"NOT_PERMITTED_TO_OPEN", "INVARIANT_VIOLATION"},
	9: {"NOT_A_MEMBER", "INVARIANT_VIOLATION"}, 10: {"REPEATED", "DUPLICATE_SEQ"},
	11: {"ID_REUSED", "DUPLICATE_SEQ"}, 12: {"STALE_ID", "DUPLICATE_SEQ"},
	13: {"DUPLICATE_SEQ", "DUPLICATE_SEQ"}, 14: {"INVARIANT_VIOLATION", "INVARIANT_VIOLATION"},
}

// ReasonOf gives the reason with a name, 0 when there is none.
func ReasonOf(name string) Reason {
	for i, r := range reasons {
		if i > 0 && r.name == name {
			return Reason(i)
		}
	}
	return 0
}

// Name is the reason's own name.
func (r Reason) Name() string { return reasons[r].name }

// Paper is the papers' reason that it is shown under.
func (r Reason) Paper() string { return reasons[r].paper }

// RecordHash is the hash of a record of the log.
func RecordHash(key, value *[]byte, headers []byte) wire.Hash {
	return wire.Sum("nocturne/record/v1", wire.Optional(key), wire.Optional(value), headers)
}

// Disposition is what became of a record: a leaf of a block's disposition tree.
type Disposition struct {
	Position    Position
	CommandHash *wire.Hash
	Events      []wire.Hash
	Receipt     *wire.Hash
}

// Fields names the fields of a Disposition.
func (d *Disposition) Fields(c *wire.Codec) {
	fixed := func(h *wire.Hash) { c.Fixed(h[:]) }
	d.Position.Fields(c)
	wire.Nullable(c, &d.CommandHash, fixed)
	c.Hashes(&d.Events)
	wire.Nullable(c, &d.Receipt, fixed)
}

// SessionLeaf is what the state tree holds of a session.
type SessionLeaf struct {
	Sequence           int64
	HeadHash           wire.Hash
	EventsRoot         wire.Hash
	ReceiptCount       int64
	ReceiptsRoot, Rest wire.Hash
}

// Bytes is the value of the leaf.
func (l *SessionLeaf) Bytes() []byte {
	b := append(wire.U64(l.Sequence), l.HeadHash[:]...)
	b = append(append(b, l.EventsRoot[:]...), wire.U64(l.ReceiptCount)...)
	return append(append(b, l.ReceiptsRoot[:]...), l.Rest[:]...)
}
