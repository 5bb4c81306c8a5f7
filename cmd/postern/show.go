package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
)

const (
	messagePrefix  = "msg_"
	deliveryPrefix = "dlv_"
)

// showOptions say how much of a record is shown.
type showOptions struct {
	all  bool // attempts, with request and response
	body bool // nothing but the message's body
}

func (p *program) showCommand() *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a delivery with its attempts, or a message with its deliveries",
		Long: `Show everything that is on record about a delivery (dlv_…): its attempts in time, the message, and request and
response of the latest attempt, secrets masked. Of a message (msg_…) it shows the body and how its deliveries stand.

Whatever a terminal might obey is escaped. --body writes nothing but the bytes of the message's body, as they were
posted; to a terminal, likewise escaped.`,
		Example: `  postern show dlv_019aa4c2c0de7000800000000000000100000000
  postern show msg_019aa4c2c0de70008000000000000001 --body > body.bin`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: one(p.completeDeliveries("")),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.body && (p.json || o.all) {
				return usageError{errors.New("--body shows the body alone; leave out --json and --all")}
			}
			return p.show(cmd.Context(), args[0], o)
		},
	}
	p.adminFlags(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "request and response of all attempts, not of the latest only")
	cmd.Flags().BoolVar(&o.body, "body", false, "write the message's body and nothing else")
	return cmd
}

func (p *program) show(ctx context.Context, id string, o showOptions) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	switch {
	case o.body:
		return p.showBody(ctx, client, id)
	case strings.HasPrefix(id, messagePrefix):
		m, err := client.Message(ctx, id)
		switch {
		case err != nil:
			return advised(err)
		case p.json:
			return p.printJSON(m)
		}
		p.screen().showMessage(m)
	case strings.HasPrefix(id, deliveryPrefix):
		d, err := client.Delivery(ctx, id)
		switch {
		case err != nil:
			return advised(err)
		case p.json:
			return p.printJSON(d)
		}
		p.screen().showDelivery(d, o.all)
	default:
		return usageError{errors.New("that is no id; write that of a delivery (dlv_…) or of a message (msg_…), as postern list prints them")}
	}
	return nil
}

// showBody writes the body of a message, or of the message of a delivery.
func (p *program) showBody(ctx context.Context, client admin.Client, id string) error {
	if strings.HasPrefix(id, deliveryPrefix) {
		d, err := client.Delivery(ctx, id)
		if err != nil {
			return advised(err)
		}
		id = d.MessageID
	}
	body, err := client.MessageBody(ctx, id)
	if err != nil {
		return advised(err)
	}
	if isTerminal(p.stdout) {
		body = []byte(cleanBlock(string(body)) + "\n")
	}
	_, err = p.stdout.Write(body)
	return err
}

func (s *screen) showDelivery(d admin.DeliveryDetail, all bool) {
	s.line(s.strong.Render(clean(d.ID)) + "  " + s.state(d.State).Render(clean(stateOf(d.Delivery))))
	s.field("destination", clean(d.Destination))
	s.field("event", clean(d.Event))
	s.field("message", clean(d.MessageID))
	s.field("ordering key", clean(d.OrderKey))
	s.field("accepted", s.moment(d.AcceptedAt))
	s.field("due", s.moment(d.DueAt))
	s.field("ended", s.moment(d.EndedAt))
	s.field("reason", clean(d.Reason))
	if d.Round > 1 {
		s.field("round", fmt.Sprintf("%d (replayed)", d.Round))
	}

	s.heading(fmt.Sprintf("Attempts (%d)", len(d.History)))
	s.timeline(d.History)

	s.heading("Message")
	s.messageFields(d.Message)
	s.messageBody(d.Message)

	shown := d.History
	if !all && len(shown) > 1 {
		shown = shown[len(shown)-1:]
	}
	for _, a := range shown {
		s.showAttempt(a)
	}
}

// timeline shows each attempt in a line.
func (s *screen) timeline(history []admin.Attempt) {
	if len(history) == 0 {
		s.line("  none yet")
		return
	}
	t := &table{width: s.width, columns: []column{
		{title: "  ROUND", right: true}, {title: "TRY", right: true}, {title: "STARTED"}, {title: "AGE", right: true, rank: 1},
		{title: "TOOK", right: true}, {title: "OUTCOME", least: 10},
	}}
	for _, a := range history {
		outcome := attemptOutcome(a)
		if a.Probe {
			outcome += " (a probe)"
		}
		t.add(plainCell(fmt.Sprint(a.Round)), plainCell(fmt.Sprint(a.Number)), plainCell(a.StartedAt.Local().Format(clockFormat)),
			cell{span(max(s.now.Sub(a.StartedAt), 0)), s.faint}, plainCell(took(a.TookSeconds)), cell{clean(outcome), s.class(a.Class)})
	}
	t.write(s, true)
}

func (s *screen) showAttempt(a admin.Attempt) {
	name := fmt.Sprintf("Attempt %d", a.Number)
	if a.Round > 1 {
		name += fmt.Sprintf(" of round %d", a.Round)
	}
	s.exchange(name, a.Request, a)
}

// exchange shows a request and what came back.
func (s *screen) exchange(name string, request *admin.Request, a admin.Attempt) {
	s.heading(name + ", request")
	if request == nil {
		s.line("  none was sent: " + clean(attemptOutcome(a)))
		s.timing(a)
		return
	}
	s.request(*request)
	s.heading(name + ", response")
	if a.Response != nil {
		s.response(*a.Response)
	} else {
		s.line("  none came")
	}
	s.line("")
	s.field("outcome", s.class(a.Class).Render(clean(attemptOutcome(a))))
	s.timing(a)
}

func (s *screen) showMessage(m admin.Message) {
	s.line(s.strong.Render(clean(m.ID)))
	s.field("event", clean(m.Event))
	s.messageFields(m)
	s.heading(fmt.Sprintf("Deliveries (%d)", len(m.Deliveries)))
	if len(m.Deliveries) == 0 {
		s.line("  none: no destination wanted it")
	} else {
		t := &table{columns: deliveryColumns(), width: s.width}
		for _, d := range m.Deliveries {
			t.add(s.deliveryRow(d)...)
		}
		t.write(s, true)
	}
	s.heading("Body")
	s.messageBody(m)
}

func (s *screen) messageFields(m admin.Message) {
	s.field("accepted", s.moment(m.AcceptedAt))
	s.field("content type", clean(m.ContentType))
	s.field("size", size(m.SizeBytes))
	s.field("ordering key", clean(m.Key))
	s.field("path", clean(m.Path))
	s.headers(m.Headers)
}

func (s *screen) messageBody(m admin.Message) {
	switch {
	case m.BodyRemoved:
		s.line("    " + s.faint.Render("(the body is no longer kept as it was posted)"))
	case m.SizeBytes == 0:
		s.line("    " + s.faint.Render("(empty)"))
	default:
		s.content(m.Content, m.BodyTruncated)
	}
}

// one completes a single argument.
func one(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}
