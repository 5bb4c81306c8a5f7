package listen

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

const (
	// restAfterIssue is how long a new certificate is left alone at least, or a third of its life if that is shorter,
	// whatever its authority says: one that wants all renewed at once would otherwise have us do so without an end.
	restAfterIssue = 6 * time.Hour

	// The authority is asked this often when to renew, unless it says how often within these bounds.
	askEvery    = 6 * time.Hour
	askAtLeast  = 24 * time.Hour
	askNotBelow = 10 * time.Minute
)

// life is that of a certificate.
type life struct{ from, until time.Time }

func (l life) length() time.Duration { return l.until.Sub(l.from) }

// rest is for how long a new certificate is left alone.
func (l life) rest() time.Duration { return min(restAfterIssue, l.length()/3) }

// restsUntil is the end of that.
func (l life) restsUntil() time.Time { return l.from.Add(l.rest()) }

// renewAt returns when to renew: when a third of its life is left, or at the time that was chosen from the authority's
// window, but never while it rests, and never so late that less than a fifth of its life is left.
func renewAt(l life, choice time.Time) time.Time {
	at := l.until.Add(-l.length() / 3)
	if !choice.IsZero() {
		at = choice
	}
	if latest := l.until.Add(-l.length() / 5); at.After(latest) {
		at = latest
	}
	if earliest := l.restsUntil(); at.Before(earliest) {
		at = earliest
	}
	return at
}

// choose returns a time within the window, any of them as likely as another (RFC 9773, section 4.2). fraction is from 0
// to 1.
func choose(w renewalInfo, fraction float64) time.Time {
	if !w.end.After(w.start) {
		return time.Time{}
	}
	return w.start.Add(time.Duration(fraction * float64(w.end.Sub(w.start))))
}

// askAgain returns when to ask the authority next.
func askAgain(now, wanted time.Time) time.Time {
	if wanted.IsZero() {
		return now.Add(askEvery)
	}
	return now.Add(min(max(wanted.Sub(now), askNotBelow), askAtLeast))
}

// untilDue returns for how long nothing is to be done for a name; 0 or less: a certificate is to be obtained now. It asks
// the authority when to renew, if it is time for that.
func (m *manager) untilDue(ctx context.Context, d *domain) time.Duration {
	d.mu.Lock()
	cert, issuer, window, choice := d.cert, d.issuer, d.window, d.choice
	d.mu.Unlock()
	if cert == nil || issuer != m.issuer.IssuerKey() {
		return 0
	}
	now := m.now()
	l := life{cert.Leaf.NotBefore, cert.Leaf.NotAfter}
	ask := window.again
	if ask.IsZero() {
		ask = l.restsUntil()
	}
	if !now.Before(ask) && now.Before(renewAt(l, choice)) {
		window, choice = m.ask(ctx, d, window, choice)
		ask, now = window.again, m.now()
	}
	due := renewAt(l, choice)
	if ask.After(now) && ask.Before(due) {
		return ask.Sub(now)
	}
	return due.Sub(now)
}

// ask asks the authority when to renew, and notes and returns what it says. The choice stays while the window does.
func (m *manager) ask(ctx context.Context, d *domain, before renewalInfo, choice time.Time) (renewalInfo, time.Time) {
	ctx, cancel := context.WithTimeoutCause(ctx, infoTimeout, errors.New("the question took too long"))
	defer cancel()
	window, err := m.issuer.renewalInfo(ctx, d.certificate().Leaf)
	if err != nil {
		window.start, window.end = before.start, before.end
		if !errors.Is(err, acme.ErrUnsupported) {
			m.log.Debug("authority does not say when to renew", zap.String("name", d.name), zap.String("error", cut(err.Error())))
		}
	}
	if !window.start.Equal(before.start) || !window.end.Equal(before.end) {
		choice = choose(window, rand.Float64())
		m.log.Info("authority has said when to renew", zap.String("name", d.name), zap.Time("renew_at", choice.UTC()))
	}
	window.again = askAgain(m.now(), window.again)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.window, d.choice = window, choice
	return window, choice
}
