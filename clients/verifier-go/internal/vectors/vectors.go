// Package vectors finds tests/vectors for the tests.
package vectors

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Hex is bytes that a vector shows in hex.
type Hex []byte

// UnmarshalText reads hex.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// Load reads tests/vectors/NAME.json into v.
func Load(t testing.TB, name string, v any) {
	t.Helper()
	file := filepath.Join("..", "..", "..", "..", "tests", "vectors", name+".json")
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatalf("vectors: %v", err)
	}
}
