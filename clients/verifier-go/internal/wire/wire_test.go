package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nocturne.example/verifier/internal/vectors"
)

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, expected %x", what, got, want)
	}
}

type long int64

func (l *long) Fields(c *Codec) { c.Long((*int64)(l)) }

func TestEncodingVectors(t *testing.T) {
	var v struct {
		Domain struct {
			Tag   string
			Bytes vectors.Hex
		}
		Variable []struct{ Field, Bytes vectors.Hex }
		Optional []struct {
			Field *vectors.Hex
			Bytes vectors.Hex
		}
		AvroLong []struct {
			Number string
			Bytes  vectors.Hex
		}
		SessionKey []struct{ LedgerID, Session, Key string }
		EventID    []struct {
			LedgerID, CommandHash, EventID string
			Index                          int64
		}
	}
	vectors.Load(t, "encoding", &v)
	equal(t, "domain", domain(v.Domain.Tag), v.Domain.Bytes)
	for _, x := range v.Variable {
		equal(t, "variable", Variable(x.Field), x.Bytes)
	}
	for _, x := range v.Optional {
		equal(t, "optional", Optional((*[]byte)(x.Field)), x.Bytes)
	}
	for _, x := range v.AvroLong {
		n, _ := strconv.ParseInt(x.Number, 10, 64)
		l, back := long(n), long(0)
		equal(t, x.Number, Encode(&l), x.Bytes)
		if err := Decode(x.Bytes, 10, &back); err != nil || back != l {
			t.Errorf("%s: read as %d, %v", x.Number, back, err)
		}
	}
	for _, x := range v.SessionKey {
		id, err := ParseHash(x.LedgerID)
		if got := SessionKey(id, x.Session).String(); err != nil || got != x.Key {
			t.Errorf("session key: got %s, expected %s", got, x.Key)
		}
	}
	for _, x := range v.EventID {
		id, _ := ParseHash(x.LedgerID)
		command, _ := ParseHash(x.CommandHash)
		if got := EventID(id, command, x.Index).String(); got != x.EventID {
			t.Errorf("event id: got %s, expected %s", got, x.EventID)
		}
	}
}

func TestALongHasOneForm(t *testing.T) {
	for _, b := range []string{"", "\x80", "\x80\x00", "\x82\x80\x00", "\x00\x00",
		strings.Repeat("\xff", 9) + "\x02", strings.Repeat("\xff", 10) + "\x01"} {
		var l long
		if Decode([]byte(b), 20, &l) == nil {
			t.Errorf("%x was read as %d", b, l)
		}
	}
}

func TestJSONVectors(t *testing.T) {
	var v []struct {
		Value   any
		Printed vectors.Hex
	}
	vectors.Load(t, "json", &v)
	for _, x := range v {
		if err := Canonical(x.Printed, 8); err != nil {
			t.Errorf("%s: %v", x.Printed, err)
		}
		if f, ok := x.Value.(float64); ok {
			equal(t, "number", []byte(printNumber(f)), x.Printed)
		}
		if s, ok := x.Value.(string); ok {
			equal(t, "string", quote(s), x.Printed)
			if unquote(x.Printed) != s {
				t.Errorf("%s was read as %q", x.Printed, unquote(x.Printed))
			}
		}
	}
}

func TestWhatIsNotCanonicalIsRefused(t *testing.T) {
	for _, text := range []string{
		"", " 1", "1 ", "01", "1.0", "-0", "1e5", "1E400", "1e400", "+1", ".5", "5.", "0x1", "1_0",
		"9007199254740992", "-9007199254740992", "100000000000000000000", "1e20", "1e-400",
		"0.10000000000000000555111512312578270211815834045410", "NaN", "nul", "truee",
		`"`, `"\"`, `"\/"`, `"\u0041"`, `"\u001F"`, `"\u000a"`, `"\u00"`, `"\ud834\udd1e"`, `"\ud834"`,
		"\"\n\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", `"\x"`, "\ufeff1", "'a'",
		"[", "[1", "[1,", "[1,]", "[,1]", "[1 ,2]", "[1]]", "]", "[1}", "{]",
		"{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"b":1,"a":2}`, `{"a":1,"a":1}`, `{1:2}`, `{"a" :1}`,
		"{\"\ufb33\":1,\"\U0001d11e\":2}", strings.Repeat("[", 9) + strings.Repeat("]", 9),
	} {
		if Canonical([]byte(text), 8) == nil {
			t.Errorf("%q was found canonical", text)
		}
	}
	for _, text := range []string{"9007199254740991", "1e+21", "null", `"\u001f\n"`, "[[[[[[[[]]]]]]]]"} {
		if err := Canonical([]byte(text), 8); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTextForms(t *testing.T) {
	for text, ok := range map[string]bool{
		"2023-11-14T22:13:20.000Z": true, "9999-12-31T23:59:59.999Z": true,
		"1970-01-01T00:00:00.000Z": true, "1969-12-31T23:59:59.999Z": false,
		"2023-11-14T22:13:20.00Z": false, "2023-11-14T22:13:20,000Z": false,
		"2023-11-14T22:13:20.000+00:00": false, "2023-02-29T00:00:00.000Z": false,
		"2023-11-14T22:13:60.000Z": false, "2023-11-14t22:13:20.000z": false, "": false,
	} {
		if _, err := parseTime(text); (err == nil) != ok {
			t.Errorf("time %q: %v", text, err)
		}
	}
	for text, ok := range map[string]bool{
		"": true, "AA==": true, "AB==": false, "AA": false, "AA=": false, "A\nA==": false, "AA==\n": false,
		"-_8=": false, "AAA=": true,
	} {
		if _, err := parseBase64(text); (err == nil) != ok {
			t.Errorf("base64 %q: %v", text, err)
		}
	}
	if IsSessionID("") || IsSessionID(strings.Repeat("a", 129)) || IsSessionID("a\n") || !IsSessionID("~a@b") {
		t.Error("session ids")
	}
	if IsContentType(" a") || IsContentType("a ") || IsContentType("é") || !IsContentType("a b") {
		t.Error("content types")
	}
	if _, err := ParseHash("sha256-" + strings.Repeat("A", 64)); err == nil {
		t.Error("a hash in upper case")
	}
}

func TestKeyVectors(t *testing.T) {
	type signatures []struct {
		Suite        int64
		KeyID, Bytes vectors.Hex
	}
	read := func(list signatures) (out []Signature) {
		for _, s := range list {
			out = append(out, Signature{s.Suite, Hash(s.KeyID), s.Bytes})
		}
		return out
	}
	var v struct {
		PublicKey string
		KeyBytes  vectors.Hex
		KeyID     string
		TwoSuites struct{ KeyID string }
		Signed    struct {
			Domain     string
			Message    vectors.Hex
			Signatures signatures
		}
		Possession signatures
		Edge       struct {
			Domain     string
			Signatures []struct {
				Name                      string
				PublicKey, Message, Bytes vectors.Hex
				Verifies                  bool
			}
		}
	}
	vectors.Load(t, "keys", &v)
	for _, x := range v.Edge.Signatures {
		key := Key{{Ed25519, x.PublicKey}}
		list := []Signature{{Ed25519, key.ID(), x.Bytes}}
		if key.Verify(v.Edge.Domain, x.Message, list) != x.Verifies {
			t.Errorf("%s: expected %v", x.Name, x.Verifies)
		}
	}
	b, err := parseHex(v.PublicKey, "ed25519-", 32)
	if err != nil {
		t.Fatal(err)
	}
	key := Key{{Ed25519, b}}
	id := key.ID()
	equal(t, "key bytes", key.Bytes(), v.KeyBytes)
	if id.String() != v.KeyID || key[0].String() != v.PublicKey {
		t.Errorf("key id %s", id)
	}
	two := append(Key{}, key[0], PublicKey{2, make([]byte, 1312)})
	if two.ID().String() != v.TwoSuites.KeyID || two.Check() == nil || (Key{}).Check() == nil {
		t.Error("a key of two suites, or of none")
	}
	if !key.Verify(v.Signed.Domain, v.Signed.Message, read(v.Signed.Signatures)) ||
		!key.Verify("nocturne/possession/v1", id[:], read(v.Possession)) {
		t.Error("a signature does not verify")
	}
	if key.Verify("nocturne/vote/v1", id[:], read(v.Possession)) || key.Verify("nocturne/possession/v1", id[:], nil) {
		t.Error("a signature of something else verifies")
	}
}

// The standard library accepts a signature of anything by a key of small order; this must not.
func TestWeakKeysAndSignaturesAreRefused(t *testing.T) {
	for _, y := range smallY {
		for _, sign := range []byte{0, 0x80} {
			public := bytes.Clone(y)
			public[31] |= sign
			accepted := 0
			for i := uint64(0); i < 400; i++ {
				for _, r := range smallY[1:2] {
					signature := append(bytes.Clone(r), make([]byte, 32)...)
					message := binary.BigEndian.AppendUint64(nil, i)
					if ed25519.Verify(public, message, signature) {
						accepted++
					}
					if verifyEd25519(public, message, signature) {
						t.Fatalf("a signature by the weak key %x verifies", public)
					}
				}
			}
			if accepted == 0 {
				t.Errorf("%x is not of small order: the test shows nothing", public)
			}
		}
	}
	// S above the group order, and points that are not canonical.
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	public, message := private.Public().(ed25519.PublicKey), []byte("m")
	signature := ed25519.Sign(private, message)
	if !verifyEd25519(public, message, signature) {
		t.Fatal("an honest signature does not verify")
	}
	order := fromHex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	for i, carry := 0, 0; i < 32; i++ {
		sum := int(signature[32+i]) + int(order[i]) + carry
		signature[32+i], carry = byte(sum), sum>>8
	}
	if verifyEd25519(public, message, signature) {
		t.Error("S above the group order verifies")
	}
	for y := byte(0); y < 19; y++ { // p + y
		point := bytes.Clone(prime)
		point[0] += y
		if sound(point) {
			t.Errorf("the bytes %x are not canonical", point)
		}
	}
}

func TestADifferenceIsNamed(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":1}`, `{"a":2}`, "a: expected 1 by"}, {`{"a":[1,{"b":2}]}`, `{"a":[1,{"b":3}]}`, "a[1].b: expected 2"},
		{`{"a":1}`, `{"a":1,"x":2}`, "x: expected no such"}, {`{"a":1}`, `{}`, "a: expected this member"},
	} {
		if got := Difference("", JSON(c[0]), JSON(c[1])); !strings.HasPrefix(got, c[2]) {
			t.Errorf("%s and %s: %s", c[0], c[1], got)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, text := range []string{`{"a":[1,"\n",null],"b":{}}`, "1e+21", `"\u001f"`, "-1.5e-7", "[[]]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if Canonical(text, 16) != nil || slices.ContainsFunc(text, func(b byte) bool { return b >= 0xee }) {
			return // reprint compares names as bytes: what comes after the surrogates is left out
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if printed := reprint(v); string(printed) != string(text) {
			t.Errorf("%q prints as %q", text, printed)
		}
		if end := skip(text, 0); end != len(text) {
			t.Errorf("%q: ends at %d", text, end)
		}
	})
}

// reprint prints what the standard library read.
func reprint(v any) JSON {
	switch v := v.(type) {
	case float64:
		if math.IsInf(v, 0) {
			return nil
		}
		return JSON(printNumber(v))
	case []any:
		return Print(nil, List(v, func(item any) any { return reprint(item) }))
	case map[string]any:
		o := Object{}
		for name, item := range v {
			o[name] = reprint(item)
		}
		return Print(nil, o)
	}
	return Print(nil, v)
}

func TestTwoLongValuesThatBeginAlikeAreShownWhereTheyDiffer(t *testing.T) {
	printed := `"ed25519-` + strings.Repeat("72ad84fa4f04a1b9", 8) + `"`
	for _, at := range []int{10, 90, 110, 130} {
		given := printed[:at] + "x" + printed[at+1:]
		found := Difference("signature", JSON(printed), JSON(given))
		want, got, _ := strings.Cut(strings.TrimPrefix(found, "signature: expected "), " by the rest of its line, got ")
		if want == got || !strings.Contains(got, "x") {
			t.Errorf("%d: %s", at, found)
		}
	}
}
