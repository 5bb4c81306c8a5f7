package main

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// canary is a text that stands nowhere but where the test has put it: where it comes up, something has given it away.
type canary struct {
	name    string
	text    string   // as it is put there
	content bool     // of a message and no secret: history and backup may hold it, nothing else
	onward  bool     // of a message, to be sent on: the store has to hold it, and nothing may show it
	forms   [][]byte // what is looked for: the text, or the key that it stands for
}

// pieceLength is how much of a canary gives it away, in bytes: both ends of each form are looked for.
const pieceLength = 12

// canaries is all of them. It may be used from several goroutines.
type canaries struct {
	mu   sync.Mutex // guards list
	list []canary
}

func (c *canaries) add(k canary) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, k)
	return k.text
}

// secret makes a canary whose ends are letters and digits, the same in every run, with odd characters in between: the ends
// keep their look in whatever a text is escaped for, and masks have to cope with the rest.
func (c *canaries) secret(name, odd string) string {
	text := word(name+" head") + odd + word(name+" tail")
	return c.add(canary{name: name, text: text, forms: [][]byte{[]byte(text)}})
}

// credential makes a secret of the app's own, which it wants to be sent on.
func (c *canaries) credential(name, odd string) string {
	text := word(name+" head") + odd + word(name+" tail")
	return c.add(canary{name: name, text: text, onward: true, forms: [][]byte{[]byte(text)}})
}

// key takes in a text that must have a form of its own, by the bytes that give it away.
func (c *canaries) key(name, text string, forms ...[]byte) string {
	return c.add(canary{name: name, text: text, forms: forms})
}

// content makes a canary for a message.
func (c *canaries) content(name string) string {
	text := word(name + " content")
	return c.add(canary{name: name, text: text, content: true, forms: [][]byte{[]byte(text)}})
}

func (c *canaries) all() []canary {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// word returns 16 letters and digits for a name.
func word(name string) string {
	sum := sha512.Sum512([]byte(name))
	return strings.NewReplacer("+", "", "/", "").Replace(base64.RawStdEncoding.EncodeToString(sum[:]))[:16]
}

func pieces(form []byte) [][]byte {
	return [][]byte{form[:pieceLength], form[len(form)-pieceLength:]}
}

// gramLength is the length of the part of a pattern that the search looks for first, in bytes, and stride how far its
// looks are apart: as no pattern is shorter than pieceLength, one of them falls on such a part wherever a pattern stands.
const (
	gramLength = 8
	stride     = pieceLength - gramLength + 1
)

// hunter finds canaries in what was printed, answered or written: all of them in one pass.
type hunter struct {
	grams map[uint64][]gram
	known map[string]bool // by canary and text
}

// pattern is a piece of a canary as some encoding shows it, in lower case.
type pattern struct {
	text     string
	canary   *canary
	encoding string
}

// gram is a part of a pattern.
type gram struct {
	at int // where it begins
	*pattern
}

func newHunter(list []canary) *hunter {
	h := &hunter{grams: map[uint64][]gram{}, known: map[string]bool{}}
	for i := range list {
		for _, form := range list[i].forms {
			for _, piece := range pieces(form) {
				for _, e := range encodings(piece) {
					h.learn(&list[i], e.name, e.text)
				}
			}
			for _, text := range machineWords(form) {
				h.learn(&list[i], "machine words", text)
			}
		}
	}
	return h
}

func (h *hunter) learn(c *canary, encoding, text string) {
	text = lower([]byte(text))
	key := c.name + "\n" + text
	if len(text) < pieceLength || h.known[key] { // a word of a few bytes tells nothing; letters look alike in many encodings
		return
	}
	h.known[key] = true
	p := &pattern{text: text, canary: c, encoding: encoding}
	for at := range stride {
		part := gramOf([]byte(text[at : at+gramLength]))
		h.grams[part] = append(h.grams[part], gram{at, p})
	}
}

// gramOf returns the first bytes of data as a number, the same for large and small letters.
func gramOf(data []byte) uint64 { return binary.NativeEndian.Uint64(data) | 0x2020202020202020 }

// find returns what data holds: canary and encoding, each once. The case of letters does not count.
func (h *hunter) find(data []byte) []*pattern {
	var found []*pattern
	for i := 0; i+gramLength <= len(data); i += stride {
		for _, g := range h.grams[gramOf(data[i:])] {
			from, to := i-g.at, i-g.at+len(g.text)
			if from < 0 || to > len(data) || lower(data[from:to]) != g.text {
				continue
			}
			if !slices.ContainsFunc(found, func(p *pattern) bool { return p.canary == g.canary }) {
				found = append(found, g.pattern)
			}
		}
	}
	return found
}

// lower is bytes.ToLower for ASCII alone: all else keeps its bytes.
func lower(data []byte) string {
	out := make([]byte, len(data))
	for i, c := range data {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		out[i] = c
	}
	return string(out)
}

type encoding struct{ name, text string }

// encodings returns a piece in each of the ways in which it could be shown.
func encodings(piece []byte) []encoding {
	each := func(format string) string {
		var b strings.Builder
		for _, c := range piece {
			fmt.Fprintf(&b, format, c)
		}
		return strings.TrimRight(b.String(), " ,")
	}
	all := []encoding{
		{"as it is", string(piece)},
		{"JSON", jsonText(string(piece))},
		{"URL", url.QueryEscape(string(piece))},
		{"HTML", html.EscapeString(string(piece))},
		{"hexadecimal", hex.EncodeToString(piece)},
		{"JSON, every character escaped", each(`\u%04x`)},
		{"URL, every character escaped", each("%%%02x")},
		{"HTML, every character escaped", each("&#%d;")},
		{"Go, %v of bytes", each("%d ")},
		{"Go, %#v of bytes", each("0x%02x, ")},
		{"Go, list of bytes", each("0x%x, ")},
		{"JSON, list of numbers", each("%d,")},
	}
	for before, shared := range []int{0, 2, 3} { // of the letters at both ends, which are their neighbours' too
		for alphabet, coding := range map[string]*base64.Encoding{"standard": base64.RawStdEncoding, "URL": base64.RawURLEncoding} {
			coded := coding.EncodeToString(append(make([]byte, before), piece...))
			if (before+len(piece))%3 != 0 {
				coded = coded[:len(coded)-1]
			}
			all = append(all, encoding{fmt.Sprintf("base64, %s, %d before", alphabet, before), coded[shared:]})
		}
	}
	return all
}

// machineWords returns every eight bytes of a form as the dump of a goroutine's registers and arguments would show them.
func machineWords(form []byte) []string {
	var all []string
	for i := 0; i+8 <= len(form); i++ {
		all = append(all, fmt.Sprintf("0x%x", binary.LittleEndian.Uint64(form[i:])))
	}
	return all
}

func jsonText(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(quoted[1 : len(quoted)-1])
}

// checkHunter proves that the search finds what it is for: each canary, whole, in whatever somebody may have made of it.
func checkHunter(t *testing.T, h *hunter, list []canary) {
	t.Helper()
	const filler = "nothing of it here, 0x2a and bm90aGluZw== neither; "
	if found := h.find([]byte(filler)); len(found) > 0 {
		t.Errorf("%s is found where it is not", found[0].canary.name)
	}
	for _, c := range list {
		for n, form := range c.forms {
			text := string(form)
			planted := map[string]string{
				"hexadecimal": hex.EncodeToString(form), "HEXADECIMAL": fmt.Sprintf("%X", form),
				"%v": fmt.Sprint(form), "%#v": fmt.Sprintf("%#v", form), "list": jsonNumbers(form),
			}
			if n == 0 && text == c.text { // and no raw key
				planted["upper case"], planted["JSON"], planted["Go"] = strings.ToUpper(text), jsonText(text), strconv.Quote(text)
				planted["query"], planted["path"], planted["HTML"] = url.QueryEscape(text), url.PathEscape(text), html.EscapeString(text)
			}
			if len(text) >= 2*pieceLength {
				planted["first half"], planted["last half"] = text[:len(text)/2], text[len(text)/2:]
			}
			if n == 0 { // in which the key may stand as it is in a file
				planted["whole"], planted["whole in JSON"], planted["whole in Go"] = c.text, jsonText(c.text), strconv.Quote(c.text)
			}
			for before := range 3 {
				in := append([]byte("abc"[:before]), form...)
				planted[fmt.Sprintf("base64 behind %d", before)] = base64.StdEncoding.EncodeToString(append(in, "z"...))
				planted[fmt.Sprintf("base64url behind %d", before)] = base64.RawURLEncoding.EncodeToString(append(in, "zz"...))
			}
			for shift := range stride { // to everywhere between two looks
				planted[fmt.Sprintf("as it is, behind %d", shift)] = filler[:shift] + text
			}
			for how, plant := range planted {
				found := h.find([]byte(filler[:20+len(plant)%stride] + "\x00" + plant + filler))
				if !slices.ContainsFunc(found, func(p *pattern) bool { return p.canary.name == c.name }) {
					t.Errorf("%s, form %d, %s: not found in %q", c.name, n, how, plant)
				}
			}
		}
	}
}

func jsonNumbers(form []byte) string {
	var numbers []string
	for _, c := range form {
		numbers = append(numbers, strconv.Itoa(int(c)))
	}
	return "[" + strings.Join(numbers, ",") + "]"
}
