package admin

import (
	_ "embed"
	"net/http"
	"strconv"
)

//go:embed openapi.json
var openAPI []byte

// OpenAPI returns the description of the API (OpenAPI 3.1). It is made from the table of operations and their Go
// types, whose comments are its texts; a test writes it anew and compares.
func OpenAPI() []byte { return append([]byte{}, openAPI...) }

func (h *Handler) description(w http.ResponseWriter, _ *http.Request, _ input[none, none]) error {
	setHeaders(w.Header(), jsonType)
	w.Header().Set("Content-Length", strconv.Itoa(len(openAPI)))
	_, _ = w.Write(openAPI) // a client that is gone needs no answer
	return nil
}
