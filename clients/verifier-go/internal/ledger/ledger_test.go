package ledger

import (
	"bytes"
	"testing"

	"nocturne.example/verifier/internal/vectors"
	"nocturne.example/verifier/internal/wire"
)

// reads decodes b into r; decoding checks that it encodes to b again.
func reads(t testing.TB, what string, b []byte, r wire.Record) {
	t.Helper()
	if err := wire.Decode(b, 1<<20, r); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

type signatures []struct {
	Suite        int64
	KeyID, Bytes vectors.Hex
}

func (list signatures) read() (out []wire.Signature) {
	for _, s := range list {
		out = append(out, wire.Signature{Suite: s.Suite, KeyID: wire.Hash(s.KeyID), Bytes: s.Bytes})
	}
	return out
}

type founding struct {
	Genesis          vectors.Hex
	LedgerID         string
	Authority        string
	Validators       []string
	ValidatorSetHash string
	Quorum           int
}

func geneses(t testing.TB) (v []founding) {
	vectors.Load(t, "genesis", &v)
	return v
}

func TestGenesisVectors(t *testing.T) {
	for _, v := range geneses(t) {
		f, err := ReadGenesis(v.Genesis)
		if err != nil {
			t.Fatal(err)
		}
		set := f.Sets().sets[0]
		if f.LedgerID.String() != v.LedgerID || set.Hash.String() != v.ValidatorSetHash ||
			set.Quorum != v.Quorum || f.Authority[0].String() != v.Authority ||
			len(f.Validators) != len(v.Validators) {
			t.Errorf("ledger %s: got %+v", v.LedgerID, f)
		}
		for i := 0; i < len(v.Genesis); i++ {
			changed := bytes.Clone(v.Genesis)
			changed[i] ^= 0x80
			if g, err := ReadGenesis(changed); err == nil && g.LedgerID == f.LedgerID {
				t.Errorf("byte %d changed: the same ledger", i)
			}
			if _, err := ReadGenesis(v.Genesis[:i]); err == nil {
				t.Errorf("%d bytes are a genesis", i)
			}
		}
	}
}

func TestAnIllFormedGenesisIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Genesis){
		"version":     func(g *Genesis) { g.RulesVersion = 2 },
		"partitions":  func(g *Genesis) { g.Partitions = 257 },
		"validators":  func(g *Genesis) { g.Validators = nil },
		"possession":  func(g *Genesis) { g.AuthorityPossession[0].Bytes[3] ^= 1 },
		"threshold":   func(g *Genesis) { g.Threshold = 2 },
		"record size": func(g *Genesis) { g.RecordBytesMax = g.BlockBytesMax/2 + 1 },
		"block size":  func(g *Genesis) { g.BlockBytesMax = blockBytesMax + 1 },
		"many events": func(g *Genesis) { g.CommandEventsMax = 1 << 55 },
		"no room":     func(g *Genesis) { g.BlockBytesMax = 2*g.RecordBytesMax + 1 },
		"window":      func(g *Genesis) { g.IDWindow = 0 },
		"anchor":      func(g *Genesis) { g.Anchors = []wire.Key{nil} },
	} {
		var g Genesis
		reads(t, "genesis", geneses(t)[0].Genesis, &g)
		spoil(&g)
		if _, err := ReadGenesis(wire.Encode(&g)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// signedCommand is the envelope of a command, which exports do not need.
type signedCommand struct {
	command    Command
	signatures []wire.Signature
	payloads   []payload
}

type payload struct {
	salt  wire.Hash
	bytes []byte
}

func (p *payload) fields(c *wire.Codec) {
	c.Fixed(p.salt[:])
	c.Bytes(&p.bytes)
}

func (s *signedCommand) Fields(c *wire.Codec) {
	s.command.Fields(c)
	c.Signatures(&s.signatures)
	wire.Array(c, &s.payloads, func(p *payload) { p.fields(c) })
}

func TestCommandVectors(t *testing.T) {
	var all []struct {
		Command, SignedCommand vectors.Hex
		CommandHash            string
		Signatures             signatures
		Payloads               []struct {
			Salt, Bytes vectors.Hex
			PayloadHash string
		}
	}
	vectors.Load(t, "commands", &all)
	unsigned := 0
	for _, v := range all {
		var command Command
		var envelope signedCommand
		reads(t, "command", v.Command, &command)
		reads(t, "signed command", v.SignedCommand, &envelope)
		if command.Hash().String() != v.CommandHash || command.Check() != nil ||
			len(envelope.payloads) != len(v.Payloads) {
			t.Errorf("command %s: %v", command.Hash(), command.Check())
		}
		if !command.Verify(v.Signatures.read()) {
			unsigned++ // one of the vectors is a command whose signature is wrong
		}
		for i, p := range v.Payloads {
			hash := PayloadHash(wire.Hash(p.Salt), p.Bytes)
			if hash.String() != p.PayloadHash || envelope.payloads[i].salt != wire.Hash(p.Salt) {
				t.Errorf("payload hash %s", hash)
			}
		}
	}
	if unsigned > 1 {
		t.Errorf("%d commands do not verify", unsigned)
	}
}

type eventRecord struct {
	header            EventHeader
	signatures        []wire.Signature
	height, timestamp int64
	command           Command
	authorSignatures  []wire.Signature
	payload           payload
}

func (e *eventRecord) Fields(c *wire.Codec) {
	e.header.Fields(c)
	c.Signatures(&e.signatures)
	c.Long(&e.height)
	c.Long(&e.timestamp)
	e.command.Fields(c)
	c.Signatures(&e.authorSignatures)
	e.payload.fields(c)
}

func TestEventVectors(t *testing.T) {
	f, _ := ReadGenesis(geneses(t)[0].Genesis)
	var all []struct {
		Header, Event vectors.Hex
		EventHash     string
		Height        int64
		Time          wire.Time
		Signatures    signatures
	}
	vectors.Load(t, "events", &all)
	for _, v := range all {
		var header EventHeader
		var event eventRecord
		reads(t, "header", v.Header, &header)
		reads(t, "event", v.Event, &event)
		hash := header.Hash()
		if hash.String() != v.EventHash {
			t.Errorf("event hash %s", hash)
		}
		if !f.Authority.Verify("nocturne/event-signature/v1", Signed(hash, v.Time, v.Height), v.Signatures.read()) {
			t.Errorf("event %s: the authority's signature does not verify", hash)
		}
		first := header.Sequence - header.Index
		previous := wire.SessionKey(f.LedgerID, header.Session)
		if first > 1 || header.Index > 0 { // the previous hash is known of the first event of a command
			previous = header.PreviousHash
		}
		derived := Derive(&event.command, header.Position, first, previous)[header.Index]
		derived.PreviousHash = header.PreviousHash
		if !bytes.Equal(wire.Encode(&derived), v.Header) {
			t.Errorf("event %s does not follow from its command", hash)
		}
	}
}

func TestReceiptVectors(t *testing.T) {
	f, _ := ReadGenesis(geneses(t)[0].Genesis)
	var v struct {
		Reasons map[string]struct {
			Number int64
			Paper  string
		}
		Receipts []struct {
			Header      vectors.Hex
			ReceiptHash string
			Height      int64
			Time        wire.Time
			Signatures  signatures
		}
	}
	vectors.Load(t, "receipts", &v)
	if len(v.Reasons) != len(reasons)-1 || ReasonOf("") != 0 || ReasonOf("OTHER") != 0 {
		t.Error("the list of reasons")
	}
	for name, x := range v.Reasons {
		if r := ReasonOf(name); int64(r) != x.Number || r.Paper() != x.Paper || r.Name() != name {
			t.Errorf("reason %s: %d", name, r)
		}
	}
	for _, x := range v.Receipts {
		var header ReceiptHeader
		reads(t, "receipt", x.Header, &header)
		hash := header.Hash()
		if hash.String() != x.ReceiptHash {
			t.Errorf("receipt hash %s", hash)
		}
		if !f.Authority.Verify("nocturne/receipt-signature/v1", Signed(hash, x.Time, x.Height), x.Signatures.read()) {
			t.Errorf("receipt %s: the authority's signature does not verify", hash)
		}
	}
}

func TestBlockVectors(t *testing.T) {
	f, _ := ReadGenesis(geneses(t)[0].Genesis)
	var v struct {
		Blocks []struct {
			Header, CommitProof      vectors.Hex
			Digest, DispositionsRoot string
			Records                  []struct {
				Position             *[3]int64
				Key, Value           *vectors.Hex
				Headers, Disposition vectors.Hex
				RecordHash           *string
			}
		}
	}
	vectors.Load(t, "blocks", &v)
	for _, x := range v.Blocks {
		header, err := ReadHeader(x.Header)
		if err != nil {
			t.Fatal(err)
		}
		digest := Digest(x.Header)
		proof, err := ReadCommitProof(x.CommitProof)
		if err == nil {
			err = proof.Check(f, f.Sets().sets[0], header, digest)
		}
		if err != nil || header.Check(f) != nil || digest.String() != x.Digest {
			t.Errorf("block %d: %v, %v", header.Height, err, header.Check(f))
		}
		for i, r := range x.Records {
			var d Disposition
			reads(t, "disposition", r.Disposition, &d)
			if leaf, ok := header.LeafIndex(d.Position); !ok || leaf != int64(i) {
				t.Errorf("block %d: record %d is leaf %d", header.Height, i, leaf)
			}
			if r.RecordHash == nil || len(r.Headers) == 0 {
				continue // a gap, or too large to be carried
			}
			if got := RecordHash((*[]byte)(r.Key), (*[]byte)(r.Value), r.Headers); got.String() != *r.RecordHash {
				t.Errorf("block %d: record %d has hash %s", header.Height, i, got)
			}
		}
	}
}

func TestCertificateVectors(t *testing.T) {
	var v struct {
		Quorums                                              map[int]int
		Genesis, Block, CommitProof, CommitProofByDescendant vectors.Hex
		Claims                                               []struct {
			Name          string
			Header, Proof vectors.Hex
			Holds         bool
		}
	}
	vectors.Load(t, "certificates", &v)
	for n, quorum := range v.Quorums {
		if Quorum(n) != quorum {
			t.Errorf("quorum of %d: %d", n, Quorum(n))
		}
	}
	f, err := ReadGenesis(v.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ReadHeader(v.Block)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Claims {
		header, err := ReadHeader(c.Header)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := ReadCommitProof(c.Proof)
		if err == nil {
			err = proof.Check(f, f.Sets().sets[0], header, Digest(c.Header))
		}
		if (err == nil) != c.Holds {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	for _, b := range [][]byte{v.CommitProof, v.CommitProofByDescendant} {
		proof, err := ReadCommitProof(b)
		if err == nil {
			err = proof.Check(f, f.Sets().sets[0], block, Digest(v.Block))
		}
		if err != nil {
			t.Error(err)
		}
		for name, spoil := range map[string]func(*CommitProof){
			"notarization":   func(p *CommitProof) { p.Kind = 1 },
			"too few":        func(p *CommitProof) { p.Votes = p.Votes[1:] },
			"too many":       func(p *CommitProof) { p.Votes = append(p.Votes, p.Votes[0]) },
			"twice the same": func(p *CommitProof) { p.Votes[1] = p.Votes[0] },
			"no such one":    func(p *CommitProof) { p.Votes[2].Validator = 4 },
			"another's":      func(p *CommitProof) { p.Votes[2].Validator = 3 },
			"another view":   func(p *CommitProof) { p.View++ },
			"no view":        func(p *CommitProof) { p.View = 0 },
			"another epoch":  func(p *CommitProof) { p.Epoch.Number++ },
			"another set":    func(p *CommitProof) { p.ValidatorSetHash[0]++ },
			"another block":  func(p *CommitProof) { p.Digest[0]++ },
			"a header more":  func(p *CommitProof) { p.Headers = append(p.Headers, v.Block) },
			"many headers":   func(p *CommitProof) { p.Headers = make([][]byte, headersMax+1) },
		} {
			spoiled, _ := ReadCommitProof(b)
			spoil(spoiled)
			if spoiled.Check(f, f.Sets().sets[0], block, Digest(v.Block)) == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	}
}

func TestRecordsAreReadUpToTheirBounds(t *testing.T) {
	read := map[string]func([]byte) error{
		"command": func(b []byte) error {
			var m Command
			if err := wire.Decode(b, 1<<20, &m); err != nil {
				return err
			}
			return m.Check()
		},
	}
	read["block_header"] = func(b []byte) error { _, err := ReadHeader(b); return err }
	read["genesis"] = func(b []byte) error { _, err := ReadGenesis(b); return err }
	read["commit_proof"] = func(b []byte) error { _, err := ReadCommitProof(b); return err }
	var all []struct {
		Schema, Name string
		Record       vectors.Hex
		WellFormed   bool
	}
	vectors.Load(t, "bounds", &all)
	for _, v := range all {
		if err := read[v.Schema](v.Record); (err == nil) != v.WellFormed {
			t.Errorf("%s: %s: %v", v.Schema, v.Name, err)
		}
	}
}

func FuzzRecords(f *testing.F) {
	for _, v := range geneses(f) {
		f.Add([]byte(v.Genesis))
	}
	var v struct{ Block, CommitProof, CommitProofByDescendant vectors.Hex }
	vectors.Load(f, "certificates", &v)
	f.Add([]byte(v.Block))
	f.Add([]byte(v.CommitProof))
	f.Add([]byte(v.CommitProofByDescendant))
	var commands []struct{ Command vectors.Hex }
	vectors.Load(f, "commands", &commands)
	for _, c := range commands {
		f.Add([]byte(c.Command))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range []wire.Record{
			&Genesis{}, &BlockHeader{}, &CommitProof{}, &Command{}, &EventHeader{}, &ReceiptHeader{}, &Disposition{},
		} {
			if err := wire.Decode(b, 1<<20, r); err == nil && !bytes.Equal(wire.Encode(r), b) {
				t.Errorf("%T: %x does not re-encode to itself", r, b)
			}
		}
		_, _ = ReadGenesis(b)
	})
}
