package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nocturne.example/verifier/internal/vectors"
)

func TestExitCodesAndSentences(t *testing.T) {
	var all struct {
		Trusted, WithoutTrust string
		Good                  []struct {
			Lines   []string
			Verdict struct{ Sentence string }
		}
		DispositionProofs struct {
			Genesis vectors.Hex
			Proofs  []struct{ Proof string }
		}
	}
	vectors.Load(t, "exports", &all)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", strings.Join(all.Good[0].Lines, ""))
	cut := file("cut", strings.Join(all.Good[0].Lines[:5], ""))
	hostile := file("hostile", "{\"genesis\":\"\",\"height\":1,\"sessionId\":\"\u009b2J\",\"type\":\"export\",\"version\":1}\n")
	genesis := file("genesis", string(all.DispositionProofs.Genesis))
	proof := file("proof", all.DispositionProofs.Proofs[0].Proof)
	unsigned := file("unsigned", all.DispositionProofs.Proofs[1].Proof)
	sentence, other := all.Good[0].Verdict.Sentence, "sha256-"+strings.Repeat("0", 64)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--trust " + all.Trusted + " " + good, verified, sentence},
		{"--trust " + genesis + " " + good, verified, sentence},
		{good, refused, all.WithoutTrust},
		{"--trust " + other + " " + good, refused, "not of the trusted"},
		{"--trust " + all.Trusted + " " + cut, refused, "cut off"},
		{hostile, refused, `sessionId: expected a session id, got "?2J"`},
		{"--proof --trust " + genesis + " " + proof, verified, "certified and signed"},
		{"--proof --trust " + genesis + " " + unsigned, verified, "not yet signed"},
		{"--proof --trust " + genesis + " " + good, refused, "the proof is not a block line and a disposition line"},
		{"--proof --trust " + all.Trusted + " " + proof, badUse, "needs the genesis"},
		{"--trust sha256-00 " + good, badUse, "expected sha256-"},
		{"--trust " + good + " " + good, badUse, "is no genesis"},
		{"--trust " + dir + "/none " + good, badUse, "--trust"},
		{dir + "/none", badUse, "none"},
		{dir, badUse, "no file"},
		{"", badUse, "usage"},
		{"a b", badUse, "usage"},
		{"--other " + good, badUse, "usage"},
	} {
		var out, complaints bytes.Buffer
		code := run(strings.Fields(c.args), &out, &complaints)
		said := out.String() + complaints.String()
		if code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit %d, %s; expected %d, %s", c.args, code, said, c.code, c.says)
		}
	}
}
