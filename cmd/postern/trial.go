package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/relay/admin"
)

// maxBody is the most bytes of a body that a command sends: the largest listen.max_body.
const maxBody = 16 << 20

// bodyFlags say where a body comes from and what it is.
type bodyFlags struct {
	data, file  string
	contentType string
	headers     []string
}

func (f *bodyFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.data, "data", "d", "", "the body, as text")
	flags.StringVarP(&f.file, "file", "f", "", "file with the body; - is the standard input")
	flags.StringVar(&f.contentType, "content-type", "", "type of the body; without it, application/json, text/plain or application/octet-stream, whatever it is")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "header as if the app had sent it, as Name: value; may be repeated")
}

// body reads what the flags name; given tells whether they name something.
func (p *program) body(cmd *cobra.Command, f bodyFlags) (body []byte, given bool, err error) {
	switch data := cmd.Flags().Changed("data"); {
	case data && f.file != "":
		return nil, false, usageError{errors.New("there are both --data and --file; give one of them")}
	case data:
		return []byte(f.data), true, nil
	case f.file == "":
		return nil, false, nil
	}
	body, err = p.readInput(f.file, maxBody)
	if err != nil {
		return nil, false, usageError{fmt.Errorf("read body: %w", err)}
	}
	return body, true, nil
}

// errNoValue is for what would break a request: it is refused before any of it is sent.
var errNoValue = errors.New("holds a control character, such as an end of line, which a header cannot carry")

// header reads the values of --header.
func (f bodyFlags) header() (http.Header, error) {
	h := http.Header{}
	for _, line := range f.headers {
		if err := addField(h, line); err != nil {
			return nil, usageError{fmt.Errorf("--header: %w", err)}
		}
	}
	for name, values := range h {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, usageError{fmt.Errorf("--header: the value of %s %w", name, errNoValue)}
			}
		}
	}
	return h, nil
}

// sample makes the message of a test; without flags it is empty, and the relay takes one of its own.
func (p *program) sample(cmd *cobra.Command, f bodyFlags, event string) (admin.Sample, error) {
	s := admin.Sample{Event: event, ContentType: f.contentType}
	body, given, err := p.body(cmd, f)
	if err != nil {
		return s, err
	}
	if given {
		if len(body) == 0 {
			return s, usageError{errors.New("the body is empty; leave out --data and --file for a sample")}
		}
		if s.ContentType == "" {
			s.ContentType = typeOf(body)
		}
		if utf8.Valid(body) {
			s.Body = string(body)
		} else {
			s.BodyBase64 = body
		}
	}
	h, err := f.header()
	if err != nil {
		return s, err
	}
	for name, values := range h {
		if len(values) > 1 {
			return s, usageError{fmt.Errorf("--header: %s is there more than once", name)}
		}
		if s.Headers == nil {
			s.Headers = map[string]string{}
		}
		s.Headers[name] = values[0]
	}
	return s, nil
}

func (p *program) testCommand() *cobra.Command {
	var (
		f     bodyFlags
		event string
	)
	cmd := &cobra.Command{
		Use:   "test DESTINATION",
		Short: "Send one real request to a destination now, and show the whole exchange",
		Long: `Send one request by the path of every attempt: rendered, signed and authorized by the config that is in effect.
Then show the request as it was sent (secrets masked), the response, and where the time went. Nothing is stored and
nothing is retried; a pause or an open breaker does not stop it.

Without --data and --file the body is a small JSON object, and the event is postern.test. Exit code 1: it was not
delivered.`,
		Example: `  postern test alerts
  postern test alerts --event alert.fired --file alert.json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			sample, err := p.sample(cmd, f, event)
			if err != nil {
				return err
			}
			return p.test(cmd.Context(), args[0], sample)
		},
	}
	p.adminFlags(cmd)
	f.add(cmd)
	cmd.Flags().StringVar(&event, "event", "", "event type; postern.test without it")
	return cmd
}

func (p *program) test(ctx context.Context, name string, sample admin.Sample) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	x, err := client.Test(ctx, name, sample)
	if err != nil {
		return advised(err)
	}
	delivered := x.Would == "delivered"
	if p.json {
		if err := p.printJSON(x); err != nil {
			return err
		}
	} else {
		s := p.screen()
		s.exchange("Test of "+clean(name), x.Request, x.Attempt)
		verdict := s.bad.Render("not delivered; a delivery would be retried")
		switch x.Would {
		case "delivered":
			verdict = s.good.Render("delivered")
		case "failed":
			verdict = s.bad.Render("not delivered; a delivery would fail at once")
		}
		s.line("\n" + verdict)
	}
	if !delivered {
		return errReported
	}
	return nil
}

func (p *program) renderCommand() *cobra.Command {
	var (
		f               bodyFlags
		event, delivery string
	)
	cmd := &cobra.Command{
		Use:   "render DESTINATION | --delivery ID",
		Short: "Show the exact request that would be sent, without sending it",
		Long: `Show the request that a destination would get by the config that is in effect, what each signature is made over,
and a curl command that sends it. Secrets are masked. Nothing is sent and nothing is stored.

The message is a sample, which the flags describe as in postern test, or that of a stored delivery (--delivery).`,
		Example: `  postern render alerts --event alert.fired --data '{"id": 1}'
  postern render --delivery dlv_019aa4c2c0de7000800000000000000100000000`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			sample, err := p.sample(cmd, f, event)
			if err != nil {
				return err
			}
			isSample := len(args) > 0 || cmd.Flags().Changed("data") || f.file != "" || event != "" || f.contentType != "" || len(f.headers) > 0
			switch {
			case delivery != "" && isSample:
				return usageError{errors.New("--delivery stands alone: the delivery says where it goes and what it is")}
			case delivery == "" && len(args) == 0:
				return usageError{errors.New("name a destination, or a stored delivery by --delivery")}
			case delivery != "":
				return p.renderDelivery(cmd.Context(), delivery)
			}
			return p.render(cmd.Context(), func(ctx context.Context, c admin.Client) (admin.Render, error) {
				return c.Render(ctx, args[0], sample)
			})
		},
	}
	p.adminFlags(cmd)
	f.add(cmd)
	cmd.Flags().StringVar(&event, "event", "", "event type; postern.test without it")
	cmd.Flags().StringVar(&delivery, "delivery", "", "id of a stored delivery, which is rendered as its next attempt would be")
	p.completeFlag(cmd, "delivery", p.completeDeliveries(""))
	return cmd
}

func (p *program) renderDelivery(ctx context.Context, id string) error {
	return p.render(ctx, func(ctx context.Context, c admin.Client) (admin.Render, error) {
		d, err := c.Delivery(ctx, id)
		if err != nil {
			return admin.Render{}, err
		}
		return c.RenderDelivery(ctx, d.Destination, id)
	})
}

func (p *program) render(ctx context.Context, ask func(context.Context, admin.Client) (admin.Render, error)) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	r, err := ask(ctx, client)
	switch {
	case err != nil:
		return advised(err)
	case p.json:
		return p.printJSON(r)
	}
	s := p.screen()
	s.line(s.strong.Render("Request"))
	s.request(r.Request)
	for _, b := range r.SignatureBases {
		s.heading("Signed by " + clean(b.Signer))
		if b.Base == "" && len(b.BaseBase64) == 0 {
			s.line("    " + s.faint.Render("(cannot be shown without a secret)"))
			continue
		}
		s.content(admin.Content{Body: b.Base, BodyBase64: b.BaseBase64}, false)
	}
	s.heading("curl")
	s.block(r.Curl)
	if r.BodyFile != "" {
		s.line("    " + s.faint.Render("the body is looked for in the file "+clean(r.BodyFile)))
	}
	return nil
}
