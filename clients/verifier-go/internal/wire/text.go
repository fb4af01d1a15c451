package wire

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Time is milliseconds since 1970 UTC.
type Time int64

// TimeMax is the end of the year 9999.
const TimeMax Time = 253402300799999

const timeLayout = "2006-01-02T15:04:05.000Z"

func (h Hash) String() string { return "sha256-" + hex.EncodeToString(h[:]) }

func (i ID) String() string {
	x := hex.EncodeToString(i[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

func (t Time) String() string { return time.UnixMilli(int64(t)).UTC().Format(timeLayout) }

func (p PublicKey) String() string { return "ed25519-" + hex.EncodeToString(p.Bytes) }

func (s Signature) String() string { return "ed25519-" + hex.EncodeToString(s.Bytes) }

// parseHex reads n bytes of lower-case hex after a prefix.
func parseHex(text, prefix string, n int) ([]byte, error) {
	digits, ok := strings.CutPrefix(text, prefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != n || strings.ToLower(digits) != digits {
		return nil, fmt.Errorf("expected %s and %d lower-case hex digits", prefix, 2*n)
	}
	return b, nil
}

// ParseHash reads a printed hash.
func ParseHash(text string) (Hash, error) {
	b, err := parseHex(text, "sha256-", 32)
	if err != nil {
		return Hash{}, err
	}
	return Hash(b), nil
}

func parseID(text string) (ID, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 || ID(b).String() != text {
		return ID{}, errors.New("expected a UUID in lower case")
	}
	return ID(b), nil
}

func parseTime(text string) (Time, error) {
	t, err := time.Parse(timeLayout, text)
	if ms := Time(t.UnixMilli()); err == nil && ms >= 0 && ms <= TimeMax && ms.String() == text {
		return ms, nil
	}
	return 0, errors.New("expected a time like 2023-11-14T22:13:20.000Z")
}

func printBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func parseBase64(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || printBase64(b) != text {
		return nil, errors.New("expected base64 with padding, unused bits zero")
	}
	return b, nil
}

var (
	sessionID   = regexp.MustCompile(`\A[A-Za-z0-9._:/@~-]{1,128}\z`)
	typeName    = regexp.MustCompile(`\A[A-Za-z0-9._:/-]{1,128}\z`)
	contentType = regexp.MustCompile(`\A[\x20-\x7e]{1,128}\z`)
)

// IsSessionID says whether text has the form of a session id.
func IsSessionID(text string) bool { return sessionID.MatchString(text) }

// IsTypeName says whether text has the form of an event type or a kind.
func IsTypeName(text string) bool { return typeName.MatchString(text) }

// IsContentType says whether text has the form of a content type.
func IsContentType(text string) bool {
	return contentType.MatchString(text) && strings.Trim(text, " ") == text
}
