package export

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"nocturne.example/verifier/internal/ledger"
	"nocturne.example/verifier/internal/tree"
	"nocturne.example/verifier/internal/wire"
)

// Verdict is what a sound export shows.
type Verdict struct {
	Ledger, Head             wire.Hash
	Session                  string
	Height, Events, Receipts int64
	Trusted                  bool // false: the ledger's identity was not checked
}

func (v *Verdict) String() string {
	if !v.Trusted {
		return fmt.Sprintf("consistent with ledger %s, identity not checked", v.Ledger)
	}
	return fmt.Sprintf("verified: %s and %s of %s as of block %d of ledger %s",
		counted(v.Events, "event"), counted(v.Receipts, "receipt"), v.Session, v.Height, v.Ledger)
}

func counted(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// verifier is what was shown by the lines so far.
type verifier struct {
	trusted *wire.Hash
	ledger  *ledger.Founding
	sets    *ledger.Sets // who certifies, by the genesis and the changes so far
	session string
	height  int64

	block *blockLine // the last one
	leaf  int64      // of the last disposition under it, −1 before the first
	idle  int64      // height of the first one that nothing stands under, 0: none

	head   wire.Hash
	events tree.Frontier

	receipts []wire.Hash   // seen as lines
	listed   tree.Frontier // named by the list
	withheld int64         // number of the first that is named and not seen there, 0: none
	missing  wire.Hash     // its hash

	ended bool
}

// Verify reads an export. The error names the first thing wrong; a nil ledger id trusts nothing.
func Verify(in io.Reader, trusted *wire.Hash) (*Verdict, error) {
	lines := bufio.NewReaderSize(in, 1<<16)
	v := &verifier{trusted: trusted}
	for number := 1; ; number++ {
		text, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		var l line
		if err == nil {
			l, err = parse(text)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if err := v.take(l); err != nil {
			return nil, err
		}
	}
	if v.ledger == nil {
		return nil, errors.New("the export is empty")
	}
	if !v.ended {
		return nil, errors.New("the export is cut off: its state line is missing")
	}
	return &Verdict{
		Ledger: v.ledger.LedgerID, Head: v.head, Session: v.session, Height: v.height,
		Events: v.events.Size, Receipts: v.listed.Size, Trusted: trusted != nil,
	}, nil
}

func (v *verifier) take(l line) error {
	first, isExport := l.(*exportLine)
	switch {
	case v.ended:
		return errors.New("something follows the state line")
	case v.ledger == nil && !isExport:
		return errors.New("the export does not begin with its export line")
	case v.ledger != nil && isExport:
		return errors.New("a second export line stands in the export")
	case isExport:
		return v.begin(first)
	}
	switch l := l.(type) {
	case *receiptsLine:
		return v.takeReceipts(l)
	case *stateLine:
		return v.takeState(l)
	case *validatorsLine:
		switch {
		case v.block != nil:
			return errors.New("a change of the validators stands after a block")
		case v.listed.Size > 0:
			return errors.New("a change of the validators stands after the list of receipts")
		}
		return l.addTo(v.sets, v.ledger, v.height)
	}
	if b, ok := l.(*blockLine); ok {
		return v.takeBlock(b)
	}
	if v.block == nil || v.listed.Size > 0 {
		return errors.New("a disposition stands under no block")
	}
	if e, ok := l.(*eventsLine); ok {
		return v.takeEvents(e)
	}
	return v.takeReceipt(l.(*receiptLine))
}

func (v *verifier) begin(l *exportLine) error {
	v.ledger, v.session, v.height = l.founded, l.session, l.height
	v.sets, v.head = v.ledger.Sets(), wire.SessionKey(v.ledger.LedgerID, v.session)
	if v.trusted != nil && *v.trusted != v.ledger.LedgerID {
		return fmt.Errorf("the export is of ledger %s, not of the trusted %s", v.ledger.LedgerID, *v.trusted)
	}
	return nil
}

func (v *verifier) takeBlock(l *blockLine) error {
	subject := fmt.Sprintf("block %d", l.Height)
	if v.listed.Size > 0 {
		return fmt.Errorf("%s stands after the list of receipts", subject)
	}
	if l.Height > v.height {
		return fmt.Errorf("%s is above the export's height %d", subject, v.height)
	}
	if v.block != nil {
		if l.Height <= v.block.Height {
			return fmt.Errorf("%s stands after block %d", subject, v.block.Height)
		}
		if v.leaf < 0 && v.idle == 0 {
			v.idle = v.block.Height
		}
		if l.Time < v.block.Time {
			return fmt.Errorf("%s: its time is before that of block %d", subject, v.block.Height)
		}
	}
	if err := checkBlock(l, v.ledger, v.sets); err != nil {
		return err
	}
	v.block, v.leaf = l, -1
	return nil
}

func checkBlock(l *blockLine, f *ledger.Founding, sets *ledger.Sets) error {
	err := l.Check(f)
	var set *ledger.ValidatorSet
	if err == nil {
		set, err = sets.OfBlock(l.BlockHeader)
	}
	if err == nil {
		err = l.proof.Check(f, set, l.BlockHeader, l.digest)
	}
	if err != nil {
		return fmt.Errorf("block %d: %w", l.Height, err)
	}
	return nil
}

// addTo adds the line's set, if the line shows that it certifies from its epoch on. What it is for
// has at most the height max.
func (l *validatorsLine) addTo(sets *ledger.Sets, f *ledger.Founding, max int64) error {
	subject := fmt.Sprintf("validators of epoch %d", l.first())
	if sets.Count() > changesMax {
		return fmt.Errorf("%s: expected at most %d changes", subject, changesMax)
	}
	if l.Height >= max {
		return fmt.Errorf("%s: block %d is not below block %d", subject, l.Height, max)
	}
	if err := checkBlock(l.blockLine, f, sets); err != nil {
		return err
	}
	switch {
	case !sets.IsEnd(l.Height):
		return fmt.Errorf("%s: block %d is not the last of its epoch", subject, l.Height)
	case l.first() <= sets.Newest():
		return fmt.Errorf("%s: they stand after those of epoch %d", subject, sets.Newest())
	case l.NextValidatorSetHash == l.ValidatorSetHash:
		return fmt.Errorf("%s: they are those of the epoch before", subject)
	}
	if err := ledger.CheckKeys(l.keys); err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	set := ledger.SetOf(l.keys)
	if set.Hash != l.NextValidatorSetHash {
		return fmt.Errorf("%s: block %d names others", subject, l.Height)
	}
	sets.Add(l.first(), set)
	return nil
}

// contains says why a block does not contain a disposition where its line says that it stands.
func (l *blockLine) contains(subject string, p *place, before int64, d *ledger.Disposition) error {
	if p.height != l.Height {
		return fmt.Errorf("%s: it says block %d, it stands in %d", subject, p.height, l.Height)
	}
	if p.time != l.Time {
		return fmt.Errorf("%s: it says %s, the time of its block is %s", subject, p.time, l.Time)
	}
	leaf, ok := l.LeafIndex(p.position)
	switch {
	case !ok:
		return fmt.Errorf("%s: its position is not in the ranges of block %d", subject, l.Height)
	case p.leaf != leaf:
		return fmt.Errorf("%s: its leaf is %d, not %d", subject, leaf, p.leaf)
	case leaf <= before:
		return fmt.Errorf("block %d: leaf %d stands after leaf %d", l.Height, leaf, before)
	}
	d.Position = p.position
	root, err := tree.RootFromPath(wire.Encode(d), uint64(leaf), uint64(l.RecordCount), p.path)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	if root != l.DispositionsRoot {
		return fmt.Errorf("%s: block %d does not contain it as it stands here", subject, l.Height)
	}
	return nil
}

func (l *eventsLine) subject() string {
	first, last := l.events[0].Sequence, l.events[len(l.events)-1].Sequence
	if first == last {
		return fmt.Sprintf("event %d", first)
	}
	return fmt.Sprintf("events %d to %d", first, last)
}

func (v *verifier) takeEvents(l *eventsLine) error {
	first, next := l.events[0].EventHeader, v.events.Size+1
	switch {
	case l.command.LedgerID != v.ledger.LedgerID:
		return fmt.Errorf("%s: it is of ledger %s", l.subject(), l.command.LedgerID)
	case l.command.Session != v.session:
		return fmt.Errorf("%s: it is of session %s, not of %s", l.subject(), l.command.Session, v.session)
	case first.Sequence > next:
		return fmt.Errorf("event %d is withheld: event %d stands in its place", next, first.Sequence)
	case first.Sequence < next:
		return fmt.Errorf("event %d stands where event %d should", first.Sequence, next)
	case first.PreviousHash != v.head && next == 1:
		return fmt.Errorf("%s: it does not begin the session", l.subject())
	case first.PreviousHash != v.head:
		return fmt.Errorf("%s: it does not continue event %d", l.subject(), next-1)
	}
	if err := l.check(v.ledger, v.block, v.leaf, false); err != nil {
		return err
	}
	v.leaf = l.leaf
	for i := range l.events {
		v.head = l.events[i].Hash()
		v.events.Append(v.head[:])
	}
	return nil
}

// check is what can be said of accepted events without those before them.
func (l *eventsLine) check(f *ledger.Founding, block *blockLine, before int64, maybeUnsigned bool) error {
	if l.command.LedgerID != f.LedgerID {
		return fmt.Errorf("%s: it is of ledger %s", l.subject(), l.command.LedgerID)
	}
	d := &ledger.Disposition{CommandHash: &l.command.hash}
	for i := range l.events {
		d.Events = append(d.Events, l.events[i].Hash())
	}
	if err := block.contains(l.subject(), &l.place, before, d); err != nil {
		return err
	}
	if !l.command.Verify(l.command.signatures) {
		return fmt.Errorf("%s: its author's signature does not verify", l.subject())
	}
	for _, e := range l.events {
		if ledger.PayloadHash(e.salt, e.payload) != e.Draft.PayloadHash {
			return fmt.Errorf("event %d: its payload is not the one its author signed", e.Sequence)
		}
	}
	for i, e := range l.events {
		if maybeUnsigned && len(e.signatures) == 0 {
			continue
		}
		message := ledger.Signed(d.Events[i], block.Time, block.Height)
		if err := check(f.Authority, "nocturne/event-signature/v1", message, e.signatures); err != nil {
			return fmt.Errorf("event %d: %w", e.Sequence, err)
		}
	}
	return nil
}

func (v *verifier) takeReceipt(l *receiptLine) error {
	if home := l.Home(); l.LedgerID == v.ledger.LedgerID && home != v.session {
		return fmt.Errorf("a receipt of session %s stands among those of %s", home, v.session)
	}
	if err := l.check(v.ledger, v.block, v.leaf, false); err != nil {
		return err
	}
	v.leaf = l.leaf
	v.receipts = append(v.receipts, l.hash)
	return nil
}

// check is what can be said of a receipt alone.
func (l *receiptLine) check(f *ledger.Founding, block *blockLine, before int64, maybeUnsigned bool) error {
	subject := fmt.Sprintf("receipt %s", l.hash)
	if l.LedgerID != f.LedgerID {
		return fmt.Errorf("%s: it is of ledger %s", subject, l.LedgerID)
	}
	d := &ledger.Disposition{CommandHash: &l.CommandHash, Receipt: &l.hash}
	if err := block.contains(subject, &l.place, before, d); err != nil {
		return err
	}
	err := l.refused()
	if err == nil && !(maybeUnsigned && len(l.signatures) == 0) {
		message := ledger.Signed(l.hash, block.Time, block.Height)
		err = check(f.Authority, "nocturne/receipt-signature/v1", message, l.signatures)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	return nil
}

// refused says why what is refused does not stand in the form that is left open.
func (l *receiptLine) refused() error {
	isCommand, tooLarge := l.Session != "", l.Reason == ledger.TooLarge
	switch {
	case isCommand && l.command == nil, !isCommand && !tooLarge && l.command == nil && l.record == nil:
		return errors.New("what it refuses is withheld")
	case !isCommand && (l.command != nil || tooLarge && l.record != nil):
		return errors.New("what it refuses stands in another form than it has")
	case !isCommand:
		return nil
	case l.command.Session != l.Session:
		return fmt.Errorf("it refuses a command of session %s", l.command.Session)
	case l.Claimed && len(l.command.signatures) > 0:
		return errors.New("nothing binds the signatures of a claimed command")
	case !l.Claimed && !l.command.Verify(l.command.signatures):
		return errors.New("the author's signature of its command does not verify")
	}
	return nil
}

func (v *verifier) takeReceipts(l *receiptsLine) error {
	number := v.listed.Size + 1
	switch {
	case l.first != number:
		return fmt.Errorf("list of receipts: expected receipt %d next, got %d", number, l.first)
	case v.listed.Size%receiptsPerLine != 0:
		return fmt.Errorf("list of receipts: a line follows one of fewer than %d", receiptsPerLine)
	case len(l.hashes) == 0:
		return errors.New("list of receipts: a line names none")
	}
	for _, hash := range l.hashes {
		if v.withheld == 0 && (number > int64(len(v.receipts)) || v.receipts[number-1] != hash) {
			v.withheld, v.missing = number, hash
		}
		v.listed.Append(hash[:])
		number++
	}
	return nil
}

func (v *verifier) takeState(l *stateLine) error {
	if v.block == nil || v.block.Height != v.height {
		return fmt.Errorf("the block of the export's height %d is missing", v.height)
	}
	if l.session != v.session || l.height != v.height {
		return fmt.Errorf("state: it is of %s at height %d", l.session, l.height)
	}
	key := wire.SessionKey(v.ledger.LedgerID, v.session)
	end, state := l.other, l.present
	if state != nil {
		end = &tree.Leaf{Key: key, Value: state.Bytes()}
	} else {
		if end != nil && end.Key == key {
			return errors.New("state: the leaf that is to show its absence is the session's own")
		}
		state = &ledger.SessionLeaf{ // of what no session has
			HeadHash: key, EventsRoot: (&tree.Frontier{}).Root(), ReceiptsRoot: (&tree.Frontier{}).Root(),
		}
	}
	root, err := tree.RootFromProof(key, l.siblings, end)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if root != v.block.StateRoot {
		return fmt.Errorf("state: it is not what block %d certifies of %s", v.height, v.session)
	}
	seen := v.events.Size
	switch {
	case state.Sequence > seen:
		return fmt.Errorf("event %d of %d is withheld: the export ends before it", seen+1, state.Sequence)
	case state.Sequence < seen, state.HeadHash != v.head, state.EventsRoot != v.events.Root():
		return fmt.Errorf("the events are not those of the ledger: they are %d, the session has %d at height %d",
			seen, state.Sequence, v.height)
	case state.ReceiptCount != v.listed.Size, state.ReceiptsRoot != v.listed.Root():
		return fmt.Errorf("the list of receipts is not that of the ledger: it names %d, the session has %d at height %d",
			v.listed.Size, state.ReceiptCount, v.height)
	case v.withheld > 0:
		return fmt.Errorf("receipt %d of %d (%s) is withheld", v.withheld, state.ReceiptCount, v.missing)
	case int64(len(v.receipts)) > v.listed.Size:
		return fmt.Errorf("receipt %s is not one of the session's", v.receipts[v.listed.Size])
	case v.idle > 0:
		return fmt.Errorf("block %d: nothing of the session stands under it", v.idle)
	}
	v.ended = true
	return nil
}

// VerifyProof reads the disposition proof of one command and says whether the authority signed it.
func VerifyProof(in io.Reader, f *ledger.Founding) (signed bool, err error) {
	lines := bufio.NewReader(io.LimitReader(in, 2*lineBytesMax)) // so that what is parsed is bounded
	var parsed []line
	for number := 1; ; number++ {
		text, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		var l line
		if err == nil && number > changesMax+2 {
			err = errors.New("expected no further line")
		}
		if err == nil {
			l, err = parse(text)
		}
		if err != nil {
			return false, fmt.Errorf("line %d: %w", number, err)
		}
		parsed = append(parsed, l)
	}
	form := errors.New("the proof is not a block line and a disposition line")
	if len(parsed) < 2 {
		return false, form
	}
	last := len(parsed) - 1
	block, ok := parsed[last-1].(*blockLine)
	if !ok {
		return false, form
	}
	changes := make([]*validatorsLine, last-1)
	for i := range changes {
		if changes[i], ok = parsed[i].(*validatorsLine); !ok {
			return false, form
		}
	}
	sets := f.Sets()
	for _, change := range changes {
		if err := change.addTo(sets, f, block.Height); err != nil {
			return false, err
		}
	}
	if err := checkBlock(block, f, sets); err != nil {
		return false, err
	}
	switch l := parsed[last].(type) {
	case *eventsLine:
		signed = len(l.events[0].signatures) > 0
		for _, e := range l.events {
			if signed != (len(e.signatures) > 0) {
				return false, fmt.Errorf("%s: the authority has signed only some of them", l.subject())
			}
		}
		return signed, l.check(f, block, -1, true)
	case *receiptLine:
		return len(l.signatures) > 0, l.check(f, block, -1, true)
	}
	return false, form
}
