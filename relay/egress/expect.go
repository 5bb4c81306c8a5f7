package egress

import (
	"context"
	"fmt"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// maxExpect is how many bytes of an answer the validators get to see (T18).
const maxExpect = 64 << 10

// expect judges an answer with a status of success by its body, of which read is what was read. whole tells that it
// was all of it.
func (s *Sender) expect(ctx context.Context, read []byte, whole bool, a *store.Attempt) {
	switch {
	case len(read) > maxExpect:
		a.Class, a.Error = store.ClassExpect, fmt.Sprintf("the answer has more than %d bytes, and is not judged", maxExpect)
	case !whole && ctx.Err() != nil:
		a.Class, a.Error = ended(ctx, phaseAnswer, s.opt.Timeout)
	case !whole:
		a.Class, a.Error = store.ClassExpect, "the answer's body broke off, so that it could not be judged"
	case len(read) == 0:
		a.Class, a.Error = store.ClassExpect, "the answer has no body, and expect asks for one"
	default:
		a.Class = store.ClassOK
		if err := s.unmet(read); err != nil {
			a.Class, a.Error = store.ClassExpect, s.unmetText(read, err)
		}
	}
}

// unmet returns what the body does not hold of what is expected.
func (s *Sender) unmet(body []byte) error {
	doc, err := match.ParseJSON(body)
	if err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	for _, e := range s.opt.Expect {
		if err := e.Check(doc); err != nil {
			return err
		}
	}
	return nil
}

// unmetText is the text of err without secrets and without what is to be redacted. It shows a part of the body, and
// could cut a secret in two, so that it is made anew from a body in which they are masked.
func (s *Sender) unmetText(body []byte, err error) string {
	shown, _ := match.RedactJSON(body, s.opt.Redact)
	text := maskSecrets(string(shown), s.secrets)
	if text != string(body) {
		if err = s.unmet([]byte(text)); err == nil {
			return "the answer does not hold what expect asks for, and where it is wrong has a secret of ours, or what is not recorded"
		}
	}
	return clean(maskSecrets(err.Error(), s.secrets))
}
