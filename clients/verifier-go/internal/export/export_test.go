package export

import (
	"encoding/json"
	"math/rand"
	"strings"
	"testing"

	"nocturne.example/verifier/internal/ledger"
	"nocturne.example/verifier/internal/vectors"
	"nocturne.example/verifier/internal/wire"
)

type good struct {
	Session string
	Trusted string
	Lines   []string
	Verdict struct {
		Height, Events, Receipts int64
		HeadHash, Sentence       string
	}
}

type exports struct {
	Trusted              string
	Good                 []good
	GoodOfFourValidators good
	Bad                  []struct {
		Name, Session, Fault string
		Lines                []json.RawMessage // a text, or the index of a line of the good export
	}
	ChangedValidators struct {
		good
		Genesis vectors.Hex
		Bad     []struct {
			Name, Fault string
			Lines       []json.RawMessage
		}
		Proofs    []string
		BadProofs []struct{ Name, Proof, Fault string }
	}
	WithoutTrust      string
	DispositionProofs struct {
		Genesis vectors.Hex
		Proofs  []struct {
			Proof  string
			Signed bool
		}
		Bad []struct{ Name, Proof, Fault string }
	}
}

func load(t testing.TB) (v exports) {
	vectors.Load(t, "exports", &v)
	for i := range v.Good {
		v.Good[i].Trusted = v.Trusted
	}
	v.Good = append(v.Good, v.ChangedValidators.good, v.GoodOfFourValidators)
	return v
}

func (g good) text() string { return strings.Join(g.Lines, "") }

func trust(t testing.TB, text string) *wire.Hash {
	id, err := wire.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return &id
}

func TestGoodExportsAreVerified(t *testing.T) {
	for _, g := range load(t).Good {
		v, err := Verify(strings.NewReader(g.text()), trust(t, g.Trusted))
		if err != nil {
			t.Errorf("%s: %v", g.Session, err)
			continue
		}
		want := g.Verdict
		if v.String() != want.Sentence || v.Height != want.Height || v.Events != want.Events ||
			v.Receipts != want.Receipts || v.Head.String() != want.HeadHash {
			t.Errorf("%s: %s, head %s; expected %+v", g.Session, v, v.Head, want)
		}
	}
}

func TestWithoutTrustTheIdentityIsNotChecked(t *testing.T) {
	all := load(t)
	v, err := Verify(strings.NewReader(all.Good[0].text()), nil)
	if err != nil || v.Trusted || v.String() != all.WithoutTrust {
		t.Errorf("%v, %v; expected %s", v, err, all.WithoutTrust)
	}
}

// Of a line that is not in its one encoding only the line is compared: words differ.
func category(fault string) string {
	if strings.HasPrefix(fault, "line ") {
		return fault[:strings.Index(fault, ":")]
	}
	return fault
}

func TestBadExportsAreRefusedForTheSameFault(t *testing.T) {
	all := load(t)
	lines := map[string][]string{}
	for _, g := range all.Good[:len(all.Good)-1] {
		lines[g.Session] = g.Lines
	}
	if len(all.Bad) < 70 {
		t.Fatalf("only %d bad exports", len(all.Bad))
	}
	for _, bad := range all.Bad {
		refuses(t, bad.Name, bad.Lines, lines[bad.Session], all.Trusted, bad.Fault)
	}
	changed := all.ChangedValidators
	if len(changed.Bad) < 20 {
		t.Fatalf("only %d bad changes", len(changed.Bad))
	}
	for _, bad := range changed.Bad {
		refuses(t, bad.Name, bad.Lines, changed.Lines, changed.Trusted, bad.Fault)
	}
}

// refuses checks the fault of an export whose lines are texts, or indexes of those of the good one.
func refuses(t *testing.T, name string, lines []json.RawMessage, good []string, trusted, fault string) {
	var text strings.Builder
	for _, raw := range lines {
		var index int
		var own string
		if json.Unmarshal(raw, &index) == nil {
			own = good[index]
		} else if err := json.Unmarshal(raw, &own); err != nil {
			t.Fatal(err)
		}
		text.WriteString(own)
	}
	_, err := Verify(strings.NewReader(text.String()), trust(t, trusted))
	if err == nil {
		t.Errorf("%s: verified; expected %s", name, fault)
	} else if category(err.Error()) != category(fault) {
		t.Errorf("%s: %s; expected %s", name, err, fault)
	}
}

func TestProofsAcrossChangesOfTheValidators(t *testing.T) {
	all := load(t).ChangedValidators
	founding, err := ledger.ReadGenesis(all.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range all.Proofs {
		if signed, err := VerifyProof(strings.NewReader(p), founding); err != nil || !signed {
			t.Errorf("proof %d: signed %v, %v", i, signed, err)
		}
	}
	for _, p := range all.BadProofs {
		if _, err := VerifyProof(strings.NewReader(p.Proof), founding); err == nil || err.Error() != p.Fault {
			t.Errorf("%s: %v; expected %s", p.Name, err, p.Fault)
		}
	}
}

func TestDispositionProofs(t *testing.T) {
	all := load(t).DispositionProofs
	founding, err := ledger.ReadGenesis(all.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all.Bad {
		if _, err := VerifyProof(strings.NewReader(p.Proof), founding); err == nil || err.Error() != p.Fault {
			t.Errorf("%s: %v; expected %s", p.Name, err, p.Fault)
		}
	}
	for i, p := range all.Proofs {
		signed, err := VerifyProof(strings.NewReader(p.Proof), founding)
		if err != nil || signed != p.Signed {
			t.Errorf("proof %d: signed %v, %v", i, signed, err)
		}
		for at := 0; at < len(p.Proof); at += 17 {
			if _, err := VerifyProof(strings.NewReader(flip(p.Proof, at, 1)), founding); err == nil {
				t.Errorf("proof %d: verified with byte %d flipped", i, at)
			}
		}
	}
}

func flip(text string, at int, mask byte) string {
	return text[:at] + string([]byte{text[at] ^ mask}) + text[at+1:]
}

func refuse(t *testing.T, what string, at int, text string, trusted *wire.Hash) {
	t.Helper()
	if _, err := Verify(strings.NewReader(text), trusted); err == nil {
		t.Errorf("%s at byte %d: verified", what, at)
	}
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for _, g := range load(t).Good {
		text, trusted := g.text(), trust(t, g.Trusted)
		small := len(text) < 4000
		for at := 0; at < len(text); at++ {
			if small { // every bit
				for bit := 0; bit < 8; bit++ {
					refuse(t, "a bit flipped", at, flip(text, at, 1<<bit), trusted)
				}
				refuse(t, "cut", at, text[:at], trusted)
				refuse(t, "a byte removed", at, text[:at]+text[at+1:], trusted)
			} else if random.Intn(16) == 0 {
				refuse(t, "a byte changed", at, flip(text, at, byte(1+random.Intn(255))), trusted)
			}
		}
	}
}

// variants gives v with each value inside it replaced by each of some others, or left out.
func variants(v any) (all []any) {
	for _, other := range []any{
		nil, true, "", "x", int64(0), int64(-1), wire.JSON("1.5"), wire.JSON("1e+21"), []any{}, wire.Object{},
	} {
		all = append(all, other)
	}
	switch v := v.(type) {
	case map[string]any:
		copied := func() wire.Object {
			o := wire.Object{}
			for name, value := range v {
				o[name] = printable(value)
			}
			return o
		}
		for name, value := range v {
			without, with := copied(), copied()
			delete(without, name)
			with["~"] = nil
			all = append(all, without, with)
			for _, other := range variants(value) {
				o := copied()
				o[name] = other
				all = append(all, o)
			}
		}
	case []any:
		list := printable(v).([]any)
		all = append(all, append(append([]any{}, list...), list...))
		for i := range v {
			for _, other := range variants(v[i]) {
				copied := append([]any{}, list...)
				copied[i] = other
				all = append(all, copied)
			}
		}
	}
	return all
}

func printable(v any) any {
	switch v := v.(type) {
	case map[string]any:
		o := wire.Object{}
		for name, value := range v {
			o[name] = printable(value)
		}
		return o
	case []any:
		return wire.List(v, printable)
	case json.Number:
		return wire.JSON(v)
	}
	return v
}

func TestEveryReplacedValueIsRefused(t *testing.T) {
	for _, g := range load(t).Good[:4] {
		for i, text := range g.Lines {
			var v any
			decoder := json.NewDecoder(strings.NewReader(text))
			decoder.UseNumber()
			if err := decoder.Decode(&v); err != nil {
				t.Fatal(err)
			}
			before, after := strings.Join(g.Lines[:i], ""), strings.Join(g.Lines[i+1:], "")
			for k, other := range variants(v) {
				printed := string(wire.Print(nil, other)) + "\n"
				if _, err := parse([]byte(printed[:len(printed)-1])); err == nil && printed != text {
					refuse(t, "a value replaced", k, before+printed+after, trust(t, g.Trusted))
				}
			}
		}
	}
}

func TestALineIsBounded(t *testing.T) {
	endless := strings.NewReader(strings.Repeat(" ", lineBytesMax+2))
	if _, err := Verify(endless, nil); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

func FuzzLine(f *testing.F) {
	for _, g := range load(f).Good {
		for _, text := range g.Lines {
			f.Add([]byte(strings.TrimSuffix(text, "\n")))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := parse(text); err == nil && !json.Valid(text) {
			t.Errorf("no JSON, and yet a line: %q", text)
		}
	})
}

// One line of a good export is another: whatever it is, nothing else is verified.
func FuzzExport(f *testing.F) {
	all := load(f)
	g := all.Good[0]
	for i, text := range g.Lines {
		f.Add(uint8(i), []byte(strings.TrimSuffix(text, "\n")))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		lines := append([]string{}, g.Lines...)
		lines[int(which)%len(lines)] = string(text) + "\n"
		changed := strings.Join(lines, "")
		if v, err := Verify(strings.NewReader(changed), trust(t, g.Trusted)); err == nil && changed != g.text() {
			t.Errorf("verified what is no good export: %s", v)
		}
	})
}

func TestTheListOfReceiptsStandsInFullLines(t *testing.T) {
	for _, c := range []struct {
		lengths []int
		ok      bool
	}{
		{[]int{1000, 1000, 3}, true}, {[]int{1000}, true}, {[]int{0}, false},
		{[]int{999, 1}, false}, {[]int{1000, 0}, false}, {[]int{1000, 5, 5}, false},
	} {
		v := &verifier{height: 1, block: &blockLine{BlockHeader: &ledger.BlockHeader{Height: 1}}}
		var err error
		first := int64(1)
		for _, n := range c.lengths {
			if err == nil {
				err = v.takeReceipts(&receiptsLine{first, make([]wire.Hash, n)})
			}
			first += int64(n)
		}
		if (err == nil) != c.ok {
			t.Errorf("%v: %v", c.lengths, err)
		}
		if v.takeReceipts(&receiptsLine{first + 1, make([]wire.Hash, 1)}) == nil {
			t.Errorf("%v: a hole is accepted", c.lengths)
		}
	}
}
