package ingest

import (
	"encoding/hex"
	"encoding/json"

	"github.com/postern-relay/postern/store"
)

// appendAnswer appends the JSON of a stored message to b. It is written by hand, since each accepted message pays
// for it; a test compares it with encoding/json.
func appendAnswer(b []byte, m store.Message) []byte {
	b = append(b, `{"id":"msg_`...)
	b = hex.AppendEncode(b, m.ID[:])
	b = append(b, `","deliveries":[`...)
	for n, to := range m.Recipients {
		if n > 0 {
			b = append(b, ',')
		}
		id := m.ID.Delivery(n)
		b = append(b, `{"id":"dlv_`...)
		b = hex.AppendEncode(b, id[:])
		b = append(b, `","destination":`...)
		b = appendString(b, to.Destination)
		b = append(b, `,"state":"pending"}`...)
	}
	return append(b, "]}\n"...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always encodes
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
