// Package wire is the sync pipe: frames between the host side and the init, and
// a small codec for what they carry.
package wire

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
)

// The codec writes exported fields in the order of their declaration, without names: both
// ends are always the same binary. encoding/json would cost the init a millisecond, and
// encoding/gob more.

// ErrShort is returned for a body that ends before its value does.
var ErrShort = errors.New("message ends too early")

const maxDepth = 32

// Marshal appends the encoding of v, or of what v points to, to buf. It fails on kinds that have none: channels,
// functions, interfaces and floats.
func Marshal(buf []byte, v any) ([]byte, error) {
	return encode(buf, reflect.Indirect(reflect.ValueOf(v)))
}

// Unmarshal decodes the whole of data into v, a pointer. Lengths are checked against what is
// there before memory is taken.
func Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return errors.New("unmarshal needs a pointer")
	}
	d := decoder{data: data}
	if err := d.value(rv.Elem(), 0); err != nil {
		return err
	}
	if len(d.data) != 0 {
		return fmt.Errorf("%d bytes after the message", len(d.data))
	}
	return nil
}

func encode(buf []byte, v reflect.Value) ([]byte, error) {
	if m, ok := reflect.TypeAssert[encoding.BinaryMarshaler](v); ok {
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, err
		}
		return append(binary.AppendUvarint(buf, uint64(len(b))), b...), nil
	}
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(buf, 1), nil
		}
		return append(buf, 0), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(buf, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(buf, v.Uint()), nil
	case reflect.String:
		return append(binary.AppendUvarint(buf, uint64(v.Len())), v.String()...), nil
	default:
		return encodeCompound(buf, v)
	}
}

func encodeCompound(buf []byte, v reflect.Value) (_ []byte, err error) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(buf, 0), nil
		}
		return encode(append(buf, 1), v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if buf, err = encode(buf, v.Field(i)); err != nil {
				return nil, err
			}
		}
		return buf, nil
	case reflect.Slice:
		buf = binary.AppendUvarint(buf, uint64(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(buf, v.Bytes()...), nil
		}
		for i := range v.Len() {
			if buf, err = encode(buf, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return buf, nil
	case reflect.Map:
		buf = binary.AppendUvarint(buf, uint64(v.Len()))
		for it := v.MapRange(); it.Next(); {
			if buf, err = encode(buf, it.Key()); err != nil {
				return nil, err
			}
			if buf, err = encode(buf, it.Value()); err != nil {
				return nil, err
			}
		}
		return buf, nil
	}
	return nil, fmt.Errorf("type %s has no encoding", v.Type())
}

type decoder struct{ data []byte }

func (d *decoder) uvarint() (uint64, error) {
	u, n := binary.Uvarint(d.data)
	if n <= 0 {
		return 0, ErrShort
	}
	d.data = d.data[n:]
	return u, nil
}

// length reads a count of things of at least size bytes each, and refuses one that
// the rest of the message can't hold.
func (d *decoder) length(size int) (int, error) {
	u, err := d.uvarint()
	if err != nil {
		return 0, err
	}
	if u > math.MaxInt32 || int(u)*size > len(d.data) {
		return 0, ErrShort
	}
	return int(u), nil
}

func (d *decoder) bytes() ([]byte, error) {
	n, err := d.length(1)
	if err != nil {
		return nil, err
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b, nil
}

func (d *decoder) flag() (bool, error) {
	if len(d.data) == 0 {
		return false, ErrShort
	}
	b := d.data[0]
	d.data = d.data[1:]
	if b > 1 {
		return false, fmt.Errorf("flag is %d, neither 0 nor 1", b)
	}
	return b == 1, nil
}

func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return errors.New("message is nested too deeply")
	}
	if m, ok := reflect.TypeAssert[encoding.BinaryUnmarshaler](v.Addr()); ok {
		b, err := d.bytes()
		if err != nil {
			return err
		}
		return m.UnmarshalBinary(b)
	}
	switch v.Kind() {
	case reflect.Bool:
		b, err := d.flag()
		v.SetBool(b)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return d.signed(v)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := d.uvarint()
		if err == nil && v.OverflowUint(u) {
			err = fmt.Errorf("%d overflows %s", u, v.Type())
		}
		v.SetUint(u)
		return err
	case reflect.String:
		b, err := d.bytes()
		v.SetString(string(b))
		return err
	default:
		return d.compound(v, depth)
	}
}

func (d *decoder) signed(v reflect.Value) error {
	i, n := binary.Varint(d.data)
	if n <= 0 {
		return ErrShort
	}
	d.data = d.data[n:]
	if v.OverflowInt(i) {
		return fmt.Errorf("%d overflows %s", i, v.Type())
	}
	v.SetInt(i)
	return nil
}

func (d *decoder) compound(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Pointer:
		there, err := d.flag()
		if err != nil || !there {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if err := d.value(v.Field(i), depth+1); err != nil {
				return fmt.Errorf("%s: %w", v.Type().Field(i).Name, err)
			}
		}
		return nil
	case reflect.Slice:
		return d.slice(v, depth)
	case reflect.Map:
		return d.dict(v, depth)
	}
	return fmt.Errorf("type %s has no encoding", v.Type())
}

func (d *decoder) slice(v reflect.Value, depth int) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b, err := d.bytes()
		if err == nil && len(b) > 0 {
			v.SetBytes(append([]byte(nil), b...))
		}
		return err
	}
	n, err := d.length(1)
	if err != nil || n == 0 {
		return err
	}
	// Grown one by one: a count of empty structs must not take memory that was never sent.
	for range n {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(e, depth+1); err != nil {
			return err
		}
		v.Set(reflect.Append(v, e))
	}
	return nil
}

func (d *decoder) dict(v reflect.Value, depth int) error {
	n, err := d.length(2)
	if err != nil || n == 0 {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range n {
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err := d.value(key, depth+1); err != nil {
			return err
		}
		if err := d.value(val, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(key, val)
	}
	return nil
}
