// Command nocturne-verify checks an export of a ledger's session offline.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"nocturne.example/verifier/internal/export"
	"nocturne.example/verifier/internal/ledger"
	"nocturne.example/verifier/internal/wire"
)

const usage = `usage: nocturne-verify [--trust LEDGER_ID|GENESIS_FILE] EXPORT_FILE
       nocturne-verify --proof --trust GENESIS_FILE PROOF_FILE
exit: 0 verified, 1 not (the first thing wrong is named), 2 bad use`

const (
	verified = iota
	refused
	badUse
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, complaints io.Writer) int {
	complain := func(why ...any) int {
		fmt.Fprintln(complaints, why...)
		return badUse
	}
	flags := flag.NewFlagSet("nocturne-verify", flag.ContinueOnError)
	flags.SetOutput(complaints)
	flags.Usage = func() { complain(usage) }
	trust := flags.String("trust", "", "")
	proof := flags.Bool("proof", false, "")
	if flags.Parse(args) != nil {
		return badUse
	}
	if flags.NArg() != 1 {
		return complain(usage)
	}
	trusted, founding, err := trustIn(*trust)
	if err != nil {
		return complain(err)
	}
	if *proof && founding == nil {
		return complain("a proof needs the genesis: --trust GENESIS_FILE")
	}
	file, err := os.Open(flags.Arg(0))
	if err != nil {
		return complain(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.IsDir() {
		return complain(flags.Arg(0), "is no file that can be read")
	}
	if *proof {
		signed, err := export.VerifyProof(file, founding)
		switch {
		case err != nil:
			return refuse(out, err)
		case signed:
			fmt.Fprintln(out, "verified: certified and signed")
		default:
			fmt.Fprintln(out, "verified: certified, not yet signed")
		}
		return verified
	}
	verdict, err := export.Verify(file, trusted)
	if err != nil {
		return refuse(out, err)
	}
	fmt.Fprintln(out, verdict)
	if !verdict.Trusted {
		return refused
	}
	return verified
}

// refuse names a fault, of which a part may be what a stranger wrote: no terminal is to obey it.
func refuse(out io.Writer, fault error) int {
	printable := func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}
	fmt.Fprintln(out, strings.Map(printable, fault.Error()))
	return refused
}

// trustIn reads what is trusted: nothing, a ledger id, or a file of Genesis bytes.
func trustIn(text string) (*wire.Hash, *ledger.Founding, error) {
	if text == "" {
		return nil, nil, nil
	}
	if strings.HasPrefix(text, "sha256-") {
		id, err := wire.ParseHash(text)
		if err != nil {
			return nil, nil, fmt.Errorf("--trust: %w", err)
		}
		return &id, nil, nil
	}
	file, err := os.Open(text)
	if err != nil {
		return nil, nil, fmt.Errorf("--trust: %w", err)
	}
	defer file.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(file, 4<<20+1)); err != nil {
		return nil, nil, fmt.Errorf("--trust: %w", err)
	}
	founding, err := ledger.ReadGenesis(b.Bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("--trust: %s is no genesis: %w", text, err)
	}
	return &founding.LedgerID, founding, nil
}
