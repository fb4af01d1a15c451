// Package export reads and verifies what docs/spec/exports.md describes.
package export

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"nocturne.example/verifier/internal/ledger"
	"nocturne.example/verifier/internal/tree"
	"nocturne.example/verifier/internal/wire"
)

const (
	lineBytesMax    = 64 << 20
	lineDepthMax    = 67
	receiptsPerLine = 1000
	changesMax      = 4096 // validators lines of an export or a proof
)

// readLine reads up to a line feed, which is not part of what it gives; io.EOF at the end.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > lineBytesMax+1 {
			return nil, fmt.Errorf("expected at most %d bytes", lineBytesMax)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, errors.New("expected a line feed at its end: the line is cut off")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// line is what a line says. It prints as the one object that says so.
type line interface{ print() wire.Object }

var readers = map[string]func(*wire.Reader, wire.Members) line{
	"export": readExport, "validators": readValidators, "block": readBlock, "events": readEvents,
	"receipt": readReceipt, "receipts": readReceipts, "state": readState,
}

// parse takes what a line says, prints it again and refuses any difference.
func parse(text []byte) (line, error) {
	var r wire.Reader
	m := r.Line(text, lineDepthMax)
	kind := r.Text(r.Get(m, "type"))
	if r.Err != nil {
		return nil, r.Err
	}
	read, ok := readers[kind]
	if !ok {
		return nil, fmt.Errorf("type: expected one of an export's lines, got %q", kind)
	}
	l := read(&r, m)
	if r.Err != nil {
		return nil, r.Err
	}
	o := l.print()
	o["type"] = kind
	if printed := wire.Print(nil, o); !bytes.Equal(printed, text) {
		return nil, errors.New(wire.Difference("", printed, text))
	}
	return l, nil
}

// exportLine is the first line.
type exportLine struct {
	session string
	height  int64
	genesis []byte
	founded *ledger.Founding
}

func readExport(r *wire.Reader, m wire.Members) line {
	version, session, genesis := r.Get(m, "version"), r.Get(m, "sessionId"), r.Get(m, "genesis")
	if r.Int(version) != 1 {
		r.Check(version, errors.New("expected 1"))
	}
	l := &exportLine{
		session: r.Text(session), height: r.Int(r.Get(m, "height")), genesis: r.Base64(genesis),
	}
	if !wire.IsSessionID(l.session) {
		r.Check(session, errors.New("expected a session id"))
	}
	if r.Err == nil {
		var err error
		l.founded, err = ledger.ReadGenesis(l.genesis)
		r.Check(genesis, err)
	}
	return l
}

func (l *exportLine) print() wire.Object {
	return wire.Object{
		"version": int64(1), "ledgerId": l.founded.LedgerID, "sessionId": l.session,
		"height": l.height, "genesis": l.genesis,
	}
}

// blockLine is a block and the proof that it is committed.
type blockLine struct {
	*ledger.BlockHeader
	proof               *ledger.CommitProof
	headerBytes, proven []byte
	digest              wire.Hash
}

func readBlock(r *wire.Reader, m wire.Members) line {
	header, proof := r.Get(m, "header"), r.Get(m, "commitProof")
	l := &blockLine{headerBytes: r.Base64(header), proven: r.Base64(proof)}
	if r.Err != nil {
		return l
	}
	var err error
	l.BlockHeader, err = ledger.ReadHeader(l.headerBytes)
	r.Check(header, err)
	l.proof, err = ledger.ReadCommitProof(l.proven)
	r.Check(proof, err)
	l.digest = ledger.Digest(l.headerBytes)
	return l
}

func (l *blockLine) print() wire.Object {
	return wire.Object{
		"height": l.Height, "timestamp": l.Time, "digest": l.digest,
		"header": l.headerBytes, "commitProof": l.proven,
	}
}

// validatorsLine is an epoch's last block, which names other validators for the next, and their keys.
type validatorsLine struct {
	*blockLine
	keys []wire.Key
}

func readValidators(r *wire.Reader, m wire.Members) line {
	l := &validatorsLine{blockLine: readBlock(r, m).(*blockLine)}
	for _, item := range r.Items(r.Get(m, "validators"), ledger.ValidatorsMax) {
		l.keys = append(l.keys, readKeys(r, r.Get(r.Object(item), "publicKeys")))
	}
	return l
}

func (l *validatorsLine) first() int64 { return l.Epoch.Number + 1 }

func (l *validatorsLine) print() wire.Object {
	o := l.blockLine.print()
	o["firstEpoch"] = l.first()
	o["validators"] = wire.List(l.keys, func(key wire.Key) any {
		return wire.Object{"publicKeys": printKeys(key)}
	})
	return o
}

// place is where a disposition stands.
type place struct {
	height   int64
	time     wire.Time
	position ledger.Position
	leaf     int64
	path     []wire.Hash
}

func readPlace(r *wire.Reader, m wire.Members) place {
	return place{
		r.Int(r.Get(m, "height")), r.Time(r.Get(m, "timestamp")),
		readPosition(r, r.Get(m, "position")), r.Int(r.Get(m, "leafIndex")),
		r.Hashes(r.Get(m, "path"), pathMax),
	}
}

func printHash(h wire.Hash) any { return h }

func (p *place) print() wire.Object {
	return wire.Object{
		"height": p.height, "timestamp": p.time, "position": printPosition(&p.position),
		"leafIndex": p.leaf, "path": wire.List(p.path, printHash),
	}
}

// eventsLine is one accepted command.
type eventsLine struct {
	place
	command *signedCommand
	events  []event
}

func readEvents(r *wire.Reader, m wire.Members) line {
	l := &eventsLine{place: readPlace(r, m), command: readCommand(r, r.Get(m, "command"))}
	list := r.Get(m, "events")
	items := r.Items(list, len(l.command.Events))
	if len(items) != len(l.command.Events) {
		r.Check(list, fmt.Errorf("expected %d events", len(l.command.Events)))
	}
	if r.Err != nil {
		return l
	}
	first := r.Object(items[0])
	headers := ledger.Derive(&l.command.Command, l.position,
		r.Int(r.Get(first, "sequenceNumber")), r.Hash(r.Get(first, "previousHash")))
	l.events = make([]event, len(items))
	for i := range items {
		l.events[i].EventHeader = headers[i]
		l.events[i].read(r, r.Object(items[i]))
	}
	return l
}

func (l *eventsLine) print() wire.Object {
	o := l.place.print()
	o["command"] = l.command.print()
	o["events"] = wire.List(l.events, func(e event) any { return e.print(l.command, &l.place) })
	return o
}

// receiptLine is one refused record.
type receiptLine struct {
	place
	ledger.ReceiptHeader
	command    *signedCommand // what is refused, or
	record     *record        // this, or neither
	hash       wire.Hash
	signatures []signature
}

// record is a record of the log that is no command.
type record struct {
	key, value *[]byte
	headers    []byte
}

func readOptional(r *wire.Reader, n wire.Node) *[]byte {
	if n.IsNull() {
		return nil
	}
	b := r.Base64(n)
	return &b
}

func readReceipt(r *wire.Reader, m wire.Members) line {
	o := r.Object(r.Get(m, "receipt"))
	context, detail := r.Object(r.Get(o, "context")), r.Get(o, "detail")
	l := &receiptLine{place: readPlace(r, m), signatures: readSignatures(r, r.Get(o, "signatures"))}
	l.ReceiptHeader = ledger.ReceiptHeader{
		LedgerID: r.Hash(r.Get(m, "ledgerId")), Reason: ledger.ReasonOf(r.Text(detail)),
		ViolatedInvariant: r.Text(r.Get(context, "violatedInvariant")),
		Session:           r.Text(r.Get(context, "sessionId")),
		AttemptedSequence: r.IntOrNull(r.Get(context, "attemptedSequence")),
		Claimed:           r.Bool(r.Get(o, "claimed")), Position: l.position,
	}
	if l.Reason == 0 {
		r.Check(detail, errors.New("expected a reason"))
	}
	if head := r.Get(o, "head"); !head.IsNull() {
		h := r.Object(head)
		l.Head = &ledger.Head{
			Sequence: r.Int(r.Get(h, "sequenceNumber")), Hash: r.Hash(r.Get(h, "eventHash")),
		}
	}
	if first := r.Get(o, "firstPosition"); !first.IsNull() {
		p := readPosition(r, first)
		l.FirstPosition = &p
	}
	if m.Has("command") {
		l.command = readCommand(r, r.Get(m, "command"))
		l.CommandHash = l.command.hash
	} else if n := r.Get(m, "record"); n.IsNull() {
		l.CommandHash = r.Hash(r.Get(o, "eventHash"))
	} else {
		f := r.Object(n)
		l.record = &record{
			readOptional(r, r.Get(f, "key")), readOptional(r, r.Get(f, "value")),
			r.Base64(r.Get(f, "headers")),
		}
		l.CommandHash = ledger.RecordHash(l.record.key, l.record.value, l.record.headers)
	}
	l.hash = l.Hash()
	return l
}

func printOptional(b *[]byte) any {
	if b == nil {
		return nil
	}
	return *b
}

func (l *receiptLine) print() wire.Object {
	all, key, first := printSignatures(l.signatures)
	var head any
	if l.Head != nil {
		head = wire.Object{"eventHash": l.Head.Hash, "sequenceNumber": l.Head.Sequence}
	}
	o := l.place.print()
	o["ledgerId"] = l.LedgerID
	o["receipt"] = wire.Object{
		"receiptHash": l.hash, "eventHash": l.CommandHash,
		"detail": l.Reason.Name(), "reason": l.Reason.Paper(),
		"context": wire.Object{
			"attemptedSequence": l.AttemptedSequence, "sessionId": l.Session,
			"violatedInvariant": l.ViolatedInvariant,
		},
		"claimed": l.Claimed, "head": head, "position": printPosition(&l.position),
		"firstPosition": printPosition(l.FirstPosition), "height": l.height, "timestamp": l.time,
		"authority": key, "signature": first, "signatures": all,
	}
	switch {
	case l.command != nil:
		o["command"] = l.command.print()
	case l.record != nil:
		o["record"] = wire.Object{
			"headers": l.record.headers, "key": printOptional(l.record.key),
			"value": printOptional(l.record.value),
		}
	default:
		o["record"] = nil
	}
	return o
}

// receiptsLine is a part of the list of all receipts of the session.
type receiptsLine struct {
	first  int64
	hashes []wire.Hash
}

func readReceipts(r *wire.Reader, m wire.Members) line {
	return &receiptsLine{
		r.Int(r.Get(m, "first")), r.Hashes(r.Get(m, "receiptHashes"), receiptsPerLine),
	}
}

func (l *receiptsLine) print() wire.Object {
	return wire.Object{"first": l.first, "receiptHashes": wire.List(l.hashes, printHash)}
}

// stateLine is the session's leaf of the state tree, or what shows that there is none.
type stateLine struct {
	session  string
	height   int64
	siblings []wire.Hash
	present  *ledger.SessionLeaf
	other    *tree.Leaf // when it is not present: the leaf on its way, if any
}

func readState(r *wire.Reader, m wire.Members) line {
	l := &stateLine{
		session: r.Text(r.Get(m, "sessionId")), height: r.Int(r.Get(m, "height")),
		siblings: r.Hashes(r.Get(m, "siblings"), tree.SiblingsMax),
	}
	if !m.Has("absent") {
		l.present = &ledger.SessionLeaf{
			Sequence: r.Int(r.Get(m, "sequenceNumber")), HeadHash: r.Hash(r.Get(m, "headHash")),
			EventsRoot:   r.Hash(r.Get(m, "eventsRoot")),
			ReceiptCount: r.Int(r.Get(m, "receiptCount")),
			ReceiptsRoot: r.Hash(r.Get(m, "receiptsRoot")), Rest: r.Hash(r.Get(m, "restHash")),
		}
	} else if n := r.Get(m, "absent"); !n.IsNull() {
		o := r.Object(n)
		l.other = &tree.Leaf{Key: r.Hash(r.Get(o, "key")), Value: r.Base64(r.Get(o, "value"))}
	}
	return l
}

func (l *stateLine) print() wire.Object {
	o := wire.Object{
		"sessionId": l.session, "height": l.height, "siblings": wire.List(l.siblings, printHash),
	}
	switch s := l.present; {
	case s != nil:
		o["sequenceNumber"], o["headHash"], o["eventsRoot"] = s.Sequence, s.HeadHash, s.EventsRoot
		o["receiptCount"], o["receiptsRoot"], o["restHash"] = s.ReceiptCount, s.ReceiptsRoot, s.Rest
	case l.other != nil:
		o["absent"] = wire.Object{"key": l.other.Key, "value": l.other.Value}
	default:
		o["absent"] = nil
	}
	return o
}
