package config

import (
	"crypto/sha256"
	"fmt"
)

const (
	// leastToken is how long a token must be, in characters.
	leastToken = 16

	// leastVariety is how many different characters it must have. What people type to reach the length often has fewer;
	// of random tokens of 16 hexadecimal digits, one in some 30,000 has.
	leastVariety = 6
)

func (t *Token) word() *Secret      { return &t.Token }
func (t *AdminToken) word() *Secret { return &t.Token }

var (
	_ worded = (*Token)(nil)
	_ worded = (*AdminToken)(nil)
)

// checkToken says what is wrong with a token, without repeating it; nothing if it is fine.
func checkToken(s Secret) string {
	word := s.Reveal()
	for _, r := range word {
		if r <= ' ' || r > '~' {
			return "the token cannot be sent in a header; write visible ASCII characters without spaces"
		}
	}
	switch {
	case len(word) < leastToken:
		return fmt.Sprintf("the token is too short; write at least %d characters", leastToken)
	case variety(word) < leastVariety:
		return "the token is too easy to guess; make one at random, as by openssl rand -hex 32"
	}
	return ""
}

// tokenList is one of the lists of tokens, for what both have in common.
type tokenList struct {
	path  string
	names []string
	words []Secret
}

// checkTokens reports tokens that are weak, or that could not be told apart.
func (d *decoder) checkTokens() {
	ingest, admin := tokenList{path: "listen.tokens"}, tokenList{path: "listen.admin_tokens"}
	for _, t := range d.cfg.Listen.Tokens {
		ingest.names, ingest.words = append(ingest.names, t.Name), append(ingest.words, t.Token)
	}
	for _, t := range d.cfg.Listen.AdminTokens {
		admin.names, admin.words = append(admin.names, t.Name), append(admin.words, t.Token)
	}
	first := map[[sha256.Size]byte]string{} // where a token stands first
	for _, list := range []tokenList{ingest, admin} {
		d.checkTokenList(list, first)
	}
	for i, t := range d.cfg.Listen.Tokens {
		for j, name := range t.Destinations {
			at := fmt.Sprintf("listen.tokens[%d].destinations[%d]", i, j)
			if d.src.isFaulty(at) || d.src.isFaulty("destinations") || d.src.isName[name] {
				continue
			}
			msg := "there is no such destination; write the name of one"
			if near := Nearest(name, d.src.names); near != "" {
				msg = fmt.Sprintf("there is no such destination; did you mean %q?", near)
			}
			d.failAt(at, msg)
		}
	}
}

func (d *decoder) checkTokenList(list tokenList, first map[[sha256.Size]byte]string) {
	named := map[string]string{}
	for i, word := range list.words {
		item := fmt.Sprintf("%s[%d]", list.path, i)
		at := item
		if list.names[i] != "" {
			at += ".token"
		}
		if name := list.names[i]; name != "" && !d.src.isFaulty(item+".name") {
			switch earlier := named[name]; {
			case !destinationName.MatchString(name):
				d.failAt(item+".name", "not a name; write letters, digits, dots, hyphens and underscores, at most 100 in all, and a letter or digit first")
			case earlier != "":
				d.failAt(item+".name", fmt.Sprintf("the name of %s already; write another one", earlier))
			default:
				named[name] = item
			}
		}
		if !word.IsSet() || d.src.isFaulty(at) {
			continue
		}
		if msg := checkToken(word); msg != "" {
			d.failAt(at, msg)
			continue
		}
		digest := sha256.Sum256([]byte(word.Reveal()))
		if earlier := first[digest]; earlier != "" {
			d.failAt(at, fmt.Sprintf("the same token as %s; write another one", earlier))
			continue
		}
		first[digest] = item
	}
}
