package wire

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON is a text that was found canonical (RFC 8785 within encoding.md §3). A value inside it is a
// slice of it, so nothing is copied and no tree of a hostile text is ever built.
type JSON []byte

var errEncoding = errors.New("not in its one encoding")

// Canonical says why b is not the canonical printing of one JSON value at most depth deep.
func Canonical(b []byte, depth int) error {
	end, err := canonical(b, 0, depth)
	if err == nil && end != len(b) {
		err = errEncoding
	}
	return err
}

func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// canonical reads the value that begins at i and gives where it ends.
func canonical(b []byte, i, depth int) (int, error) {
	switch c := at(b, i); c {
	case '"':
		_, end, err := canonicalString(b, i)
		return end, err
	case '{', '[':
		if depth == 0 {
			return i, errors.New("JSON: nested too deep")
		}
		return canonicalItems(b, i, depth-1)
	default:
		for _, word := range []string{"true", "false", "null"} {
			if strings.HasPrefix(string(b[min(i, len(b)):min(i+5, len(b))]), word) {
				return i + len(word), nil
			}
		}
		return canonicalNumber(b, i)
	}
}

func canonicalItems(b []byte, i, depth int) (int, error) {
	object, last := b[i] == '{', b[i]+2 // ']' and '}' stand two after '[' and '{'
	if at(b, i+1) == last {
		return i + 2, nil
	}
	var before []uint16
	for first := true; ; first = false {
		var err error
		if i++; object {
			var name string
			if name, i, err = canonicalString(b, i); err != nil {
				return i, err
			}
			units := utf16.Encode([]rune(name))
			if order := slices.Compare(before, units); !first && order == 0 {
				return i, fmt.Errorf("JSON: the name %q stands twice", name)
			} else if !first && order > 0 || at(b, i) != ':' {
				return i, errEncoding
			}
			before = units
			i++
		}
		if i, err = canonical(b, i, depth); err != nil {
			return i, err
		}
		if at(b, i) == last {
			return i + 1, nil
		}
		if at(b, i) != ',' {
			return i, errEncoding
		}
	}
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', 'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r'}

func canonicalString(b []byte, i int) (string, int, error) {
	if at(b, i) != '"' {
		return "", i, errEncoding
	}
	start := i
	for i++; i < len(b) && b[i] != '"'; {
		switch r, size := utf8.DecodeRune(b[i:]); {
		case b[i] == '\\' && at(b, i+1) == 'u':
			i += 6
		case b[i] == '\\':
			i += 2
		case b[i] < 0x20:
			return "", i, errEncoding
		case r == utf8.RuneError && size == 1:
			return "", i, errors.New("JSON: not UTF-8")
		default:
			i += size
		}
	}
	if i >= len(b) {
		return "", i, errors.New("JSON: a string has no end")
	}
	text := b[start : i+1]
	decoded := unquote(text)
	if slices.Contains(text, '\\') && string(quote(decoded)) != string(text) {
		return "", i, errEncoding
	}
	return decoded, i + 1, nil
}

// unquote gives what a canonical string says; of another it gives something that prints otherwise.
func unquote(text []byte) string {
	inner := text[1 : len(text)-1]
	if !slices.Contains(inner, '\\') {
		return string(inner)
	}
	var out []byte
	for i := 0; i < len(inner); i++ {
		switch {
		case inner[i] != '\\':
			out = append(out, inner[i])
		case at(inner, i+1) == 'u':
			n, _ := strconv.ParseUint(string(inner[min(i+2, len(inner)):min(i+6, len(inner))]), 16, 8)
			out = append(out, byte(n)&0x1f)
			i += 5
		default:
			out = append(out, escapes[at(inner, i+1)])
			i++
		}
	}
	return string(out)
}

func quote(text string) []byte {
	out := []byte{'"'}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if short := strings.IndexByte("\"\\\b\t\n\f\r", c); short >= 0 {
			out = append(out, '\\', `"\btnfr`[short])
		} else if c < 0x20 {
			out = fmt.Appendf(out, `\u%04x`, c)
		} else {
			out = append(out, c)
		}
	}
	return append(out, '"')
}

var number = regexp.MustCompile(`\A-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\z`)

func canonicalNumber(b []byte, i int) (int, error) {
	end := i
	for end < len(b) && end-i < 32 && strings.IndexByte("+-.0123456789Ee", b[end]) >= 0 {
		end++
	}
	text := string(b[min(i, len(b)):end])
	if !number.MatchString(text) {
		return i, errors.New("JSON: expected a value of RFC 8259")
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f == math.Trunc(f) && math.Abs(f) < 1e21 && math.Abs(f) > IntegerMax {
		return i, errors.New("JSON: expected a double, or an integer within ±(2^53−1)")
	}
	if printNumber(f) != text {
		return i, errEncoding
	}
	return end, nil
}

// printNumber prints as ECMAScript does.
func printNumber(f float64) string {
	if f == 0 {
		return "0"
	}
	if size := math.Abs(f); size >= 1e-6 && size < 1e21 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	text := strconv.FormatFloat(f, 'e', -1, 64)
	return strings.Replace(strings.Replace(text, "e-0", "e-", 1), "e+0", "e+", 1)
}

// Object is what Print prints as an object. Its names are ASCII.
type Object map[string]any

// List is what Print prints as an array: each item made by of.
func List[T any](items []T, of func(T) any) []any {
	list := make([]any, len(items))
	for i, item := range items {
		list[i] = of(item)
	}
	return list
}

// Print appends the canonical printing of a value. Bytes print as base64.
func Print(out []byte, value any) []byte {
	switch v := value.(type) {
	case Object:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		out = append(out, '{')
		for i, name := range names {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(append(out, quote(name)...), ':')
			out = Print(out, v[name])
		}
		return append(out, '}')
	case []any:
		out = append(out, '[')
		for i, item := range v {
			if i > 0 {
				out = append(out, ',')
			}
			out = Print(out, item)
		}
		return append(out, ']')
	case JSON:
		return append(out, v...)
	case []byte:
		return append(out, quote(printBase64(v))...)
	case string:
		return append(out, quote(v)...)
	case bool:
		return strconv.AppendBool(out, v)
	case int64:
		return strconv.AppendInt(out, v, 10)
	case *int64:
		if v != nil {
			return strconv.AppendInt(out, *v, 10)
		}
	case fmt.Stringer:
		return append(out, quote(v.String())...)
	}
	return append(out, "null"...)
}

// item is a value inside a canonical text, with its name in an object.
type item struct {
	name  string
	value JSON
}

// items splits an object or an array, at most max items of it; ok is false of any other value.
func (j JSON) items(open byte, max int) (found []item, ok bool) {
	if len(j) < 2 || j[0] != open {
		return nil, false
	}
	for i := 1; i < len(j)-1; i++ {
		var it item
		if open == '{' {
			end := skip(j, i)
			it.name = unquote(j[i:end])
			i = end + 1
		}
		end := skip(j, i)
		it.value = j[i:end]
		i = end
		if len(found) == max {
			return nil, false
		}
		found = append(found, it)
	}
	return found, true
}

// skip gives where the value ends that begins at i of a canonical text.
func skip(j JSON, i int) int {
	for depth := 0; i < len(j); i++ {
		switch j[i] {
		case '"':
			for i++; i < len(j) && j[i] != '"'; i++ {
				if j[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}

// Difference names the first place where a text is not what it should be.
func Difference(path string, want, got JSON) string {
	const many = 1 << 16
	if string(want) == string(got) {
		return ""
	}
	wanted, bothObjects := want.items('{', many)
	if members, ok := got.items('{', many); ok && bothObjects {
		for _, w := range wanted {
			k := slices.IndexFunc(members, func(m item) bool { return m.name == w.name })
			if k < 0 {
				return join(path, w.name) + ": expected this member, got none"
			}
			if found := Difference(join(path, w.name), w.value, members[k].value); found != "" {
				return found
			}
			members = slices.Delete(members, k, k+1)
		}
		if len(members) > 0 {
			return join(path, members[0].name) + ": expected no such member"
		}
	}
	wanted, bothArrays := want.items('[', many)
	if items, ok := got.items('[', many); ok && bothArrays && len(items) == len(wanted) {
		for i, w := range wanted {
			if found := Difference(fmt.Sprintf("%s[%d]", path, i), w.value, items[i].value); found != "" {
				return found
			}
		}
	}
	same := 0
	for same < min(len(want), len(got)) && want[same] == got[same] {
		same++
	}
	if same < briefBytes {
		same = 0
	}
	return fmt.Sprintf("%s: expected %s by the rest of its line, got %s",
		path, brief(want, same), brief(got, same))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

const briefBytes = 100

// brief shows a value's beginning, or what stands shortly before at.
func brief(j JSON, at int) string {
	shown, before := j, ""
	if at > 0 {
		shown, before = j[max(0, at-16):], "…"
	}
	if len(shown) > briefBytes {
		return before + strings.ToValidUTF8(string(shown[:briefBytes]), "") + "…"
	}
	return before + strings.ToValidUTF8(string(shown), "")
}
