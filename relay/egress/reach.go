package egress

import (
	"context"
	"errors"
	"time"

	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/store"
)

// Unreached gives the error of a probe the class and the text that an attempt would have on record if it met the same.
// The text holds no secret. Without an error the class is store.ClassOK, and the text is empty.
func Unreached(p guard.Probe) (store.Class, string) {
	if p.Err == nil {
		return store.ClassOK, ""
	}
	how := phaseDNS
	switch p.Stage {
	case guard.StageConnect:
		how = phaseConnect
	case guard.StageHandshake:
		how = phaseTLS
	}
	return classify(p.Err, how)
}

// ErrNoAnswer is among the errors of FetchToken if the token endpoint gave no whole answer.
var ErrNoAnswer = errors.New("no answer from the token endpoint")

// FetchToken gets the token that an attempt would send now: the one in memory if it is still good, and otherwise a new
// one from the token endpoint. It returns the time from which the token is used no longer, and never the token. The
// error's text is for a person and holds no secret; the end of ctx is among them. It is for Senders with OAuth2 options
// that have a Client, and returns the zero time for all others.
func (s *Sender) FetchToken(ctx context.Context) (until time.Time, err error) {
	if s.tokens == nil || !s.tokens.ready() {
		return time.Time{}, nil
	}
	t, err := s.tokens.get(ctx, s.opt.Now)
	if err != nil {
		return time.Time{}, err
	}
	return t.until, nil
}
