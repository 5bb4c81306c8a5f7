package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time, never negative; in the file it is a number with a unit, such as 30s, 5m or 72h.
type Duration time.Duration

// ParseDuration reads what time.ParseDuration reads, except for negative spans.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || s == "0" {
		if _, numErr := strconv.ParseFloat(s, 64); numErr == nil {
			return 0, errors.New("the unit is missing; write a duration such as 30s, 5m or 72h")
		}
		return 0, errors.New("not a duration; write one such as 30s, 5m or 72h")
	}
	if d < 0 {
		return 0, errors.New("a duration cannot be negative; write one such as 30s, 5m or 72h")
	}
	return Duration(d), nil
}

// String returns the duration as it is written in the file: 72h and not 72h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText returns String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// Size is a number of bytes; in the file it is a whole number with a unit: B, KiB, MiB, GiB or TiB.
type Size int64

// sizeUnits from the largest to the smallest.
func sizeUnits() []string { return []string{"TiB", "GiB", "MiB", "KiB", "B"} }

// ParseSize reads a whole number with a unit.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	unit := s[len(digits):]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, errors.New("not a size; write one such as 16KiB or 1MiB")
	}
	for i, u := range sizeUnits() {
		if u != unit {
			continue
		}
		factor := uint64(1) << (10 * (len(sizeUnits()) - 1 - i))
		if n > math.MaxInt64/factor {
			return 0, errors.New("the size is out of range; write one such as 16KiB or 1MiB")
		}
		return Size(n * factor), nil
	}
	if unit == "" {
		return 0, errors.New("the unit is missing; write a size such as 16KiB or 1MiB")
	}
	return 0, fmt.Errorf("the unit %q is not known; write B, KiB, MiB, GiB or TiB", clip(unit))
}

// String returns the size with the largest unit that leaves a whole number.
func (s Size) String() string {
	for i, u := range sizeUnits() {
		if factor := Size(1) << (10 * (len(sizeUnits()) - 1 - i)); s >= factor && s%factor == 0 {
			return strconv.FormatInt(int64(s/factor), 10) + u
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText returns String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// Rate is a number per span of time; in the file it is written 50/s, 100/m or 1000/h.
type Rate struct {
	Count int           // from 1 to 1,000,000
	Per   time.Duration // a second, a minute or an hour
}

// ParseRate reads a whole number, a slash, and s, m or h.
func ParseRate(s string) (Rate, error) {
	digits, unit, _ := strings.Cut(s, "/")
	per, ok := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	n, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil {
		return Rate{}, errors.New("not a rate; write one such as 50/s, 100/m or 1000/h")
	}
	if n < 1 || n > 1_000_000 {
		return Rate{}, errors.New("the rate is out of range; write 1 to 1000000 before the slash")
	}
	return Rate{Count: int(n), Per: per}, nil
}

// String returns the rate as it is written in the file.
func (r Rate) String() string {
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[r.Per]
	return strconv.Itoa(r.Count) + "/" + unit
}

// MarshalText returns String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRate reads.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}

// Mode is the permission bits of a file; in the file it is written in octal, such as 0660.
type Mode uint32

// ParseMode reads three octal digits, with a zero in front or without.
func ParseMode(s string) (Mode, error) {
	digits := s
	if len(digits) == 4 {
		digits = strings.TrimPrefix(digits, "0")
	}
	n, err := strconv.ParseUint(digits, 8, 9)
	if err != nil || len(digits) != 3 {
		return 0, errors.New("not a mode; write one in octal, such as 0600 or 0660")
	}
	return Mode(n), nil
}

// String returns the mode as it is written in the file: four octal digits.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalText returns String.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMode reads.
func (m *Mode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMode(string(text))
	return err
}

// clip shortens a text from the file for an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
