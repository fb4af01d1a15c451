package wire

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Record is an Avro record. It names its fields once, in order, for reading and for writing.
type Record interface{ Fields(*Codec) }

// Codec reads or writes the fields that a record names, in the one form of encoding.md §2.
type Codec struct {
	writing bool
	buf     []byte // what was written, or what is left to be read
	err     error
}

// Encode gives the bytes of a record.
func Encode(r Record) []byte {
	c := Codec{writing: true}
	r.Fields(&c)
	return c.buf
}

// Decode reads a record from all of b, at most max bytes.
func Decode(b []byte, max int, r Record) error {
	if len(b) > max {
		return fmt.Errorf("expected at most %d bytes, got %d", max, len(b))
	}
	c := Codec{buf: b}
	r.Fields(&c)
	if c.err == nil && len(c.buf) > 0 {
		c.err = fmt.Errorf("malformed: %d bytes are left over", len(c.buf))
	}
	if c.err == nil && !bytes.Equal(Encode(r), b) {
		c.err = errors.New("malformed: it does not re-encode to itself")
	}
	return c.err
}

func (c *Codec) fail(why string) {
	if c.err == nil {
		c.err = errors.New("malformed: " + why)
	}
	c.buf = nil
}

func (c *Codec) take(n int64) []byte {
	if n < 0 || n > int64(len(c.buf)) {
		c.fail("bytes are missing")
		return nil
	}
	taken := c.buf[:n]
	c.buf = c.buf[n:]
	return taken
}

// Long is an int or a long.
func (c *Codec) Long(v *int64) {
	if c.writing {
		for z := uint64(*v<<1) ^ uint64(*v>>63); ; z >>= 7 {
			if z < 0x80 {
				c.buf = append(c.buf, byte(z))
				return
			}
			c.buf = append(c.buf, byte(z)|0x80)
		}
	}
	*v = 0
	var z uint64
	for shift := 0; ; shift += 7 {
		b := c.take(1)
		if b == nil {
			return
		}
		if shift > 0 && b[0] == 0 || shift == 63 && b[0] > 1 {
			c.fail("a number is not in its shortest form of 64 bits")
			return
		}
		z |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			*v = int64(z>>1) ^ -int64(z&1)
			return
		}
	}
}

// Fixed fills v, or writes it.
func (c *Codec) Fixed(v []byte) {
	if c.writing {
		c.buf = append(c.buf, v...)
		return
	}
	copy(v, c.take(int64(len(v))))
}

// Bytes is a byte string after its length.
func (c *Codec) Bytes(v *[]byte) {
	n := int64(len(*v))
	c.Long(&n)
	if c.writing {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = c.take(n)
}

// String is UTF-8 after its length.
func (c *Codec) String(v *string) {
	b := []byte(*v)
	c.Bytes(&b)
	if !c.writing {
		if !utf8.Valid(b) {
			c.fail("a string is not UTF-8")
		}
		*v = string(b)
	}
}

// Bool is one byte, 0 or 1.
func (c *Codec) Bool(v *bool) {
	b := []byte{0}
	if *v {
		b[0] = 1
	}
	c.Fixed(b)
	if b[0] > 1 {
		c.fail("a boolean is neither 0 nor 1")
	}
	*v = b[0] == 1
}

// Nullable is a union of null and what item reads or writes.
func Nullable[T any](c *Codec, v **T, item func(*T)) {
	var branch int64
	if *v != nil {
		branch = 1
	}
	c.Long(&branch)
	switch {
	case c.err != nil || branch == 0:
		*v = nil
	case branch == 1:
		if !c.writing {
			*v = new(T)
		}
		item(*v)
	default:
		c.fail("a union has no such branch")
	}
}

// Array is no block, or one block of all items.
func Array[T any](c *Codec, items *[]T, item func(*T)) {
	n := int64(len(*items))
	c.Long(&n)
	if c.writing {
		for i := range *items {
			item(&(*items)[i])
		}
	} else {
		*items = nil
		if n < 0 || n > int64(len(c.buf)) { // no item is shorter than a byte
			c.fail("an array has too many items or a negative count")
		}
		for ; n > 0 && c.err == nil; n-- {
			var v T
			item(&v)
			*items = append(*items, v)
		}
	}
	if len(*items) > 0 {
		var end int64
		if c.Long(&end); end != 0 {
			c.fail("an array has more than one block")
		}
	}
}

// Hashes is an array of hashes.
func (c *Codec) Hashes(v *[]Hash) { Array(c, v, func(h *Hash) { c.Fixed(h[:]) }) }
