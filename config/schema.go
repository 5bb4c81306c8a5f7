package config

import (
	_ "embed"
	"slices"
)

//go:embed postern.schema.json
var schema []byte

// Schema returns the JSON Schema (draft 2020-12) of the config file. It describes the file before references are
// replaced, and leaves what a schema cannot say, such as contradictions, to Load.
func Schema() []byte { return slices.Clone(schema) }
