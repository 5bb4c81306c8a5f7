// Command postern-sbom writes what a program was built from: the modules that the Go linker has put into it, as a
// CycloneDX 1.6 document (cyclonedx.org). It reads the finished binary, so what it names is what is in there, and the
// same binary always gives the same document. make release runs it for each program.
//
//	postern-sbom -version 1.2.3 bin/postern > postern.cdx.json
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/uuid"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program without the process around it; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("postern-sbom", flag.ContinueOnError)
	flags.SetOutput(stderr)
	version := flags.String("version", "", "number of the release; build info does not hold it")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		fmt.Fprintln(stderr, "usage: postern-sbom [-version NUMBER] BINARY")
		return 2
	}
	document, err := describe(flags.Arg(0), *version)
	if err == nil {
		_, err = stdout.Write(document)
	}
	if err != nil {
		fmt.Fprintln(stderr, "postern-sbom:", err)
		return 1
	}
	return 0
}

// describe returns the document of a binary; an empty version is that of its module.
func describe(path, version string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read binary: %w", err)
	}
	info, err := buildinfo.Read(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read build info of %q: %w", path, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(newDocument(info, cmp.Or(version, info.Main.Version), sha256.Sum256(raw))); err != nil {
		return nil, fmt.Errorf("write document: %w", err)
	}
	return out.Bytes(), nil
}

// The part of CycloneDX 1.6 that is needed.
type (
	document struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		SerialNumber string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version,omitempty"`
		PURL       string     `json:"purl"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Licenses   []license  `json:"licenses,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	license struct {
		License licenseID `json:"license"`
	}
	licenseID struct {
		ID string `json:"id"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// newDocument says what build info tells. Which module needs which is not in there, so all are what the program needs.
func newDocument(info *debug.BuildInfo, version string, sum [sha256.Size]byte) document {
	main := component{
		Type: "application", Name: info.Main.Path, Version: version, Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
		Licenses: []license{{licenseID{"Apache-2.0"}}},
	}
	main.PURL = purl(info.Main.Path, main.Version)
	main.Ref = main.PURL
	for _, s := range info.Settings {
		// What else is there may say where it was built.
		switch s.Key {
		case "GOOS", "GOARCH", "GOARM", "GOAMD64", "CGO_ENABLED", "vcs.revision", "vcs.time", "vcs.modified":
			main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	components := []component{{
		Type: "library", Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"),
		PURL: purl("std", strings.TrimPrefix(info.GoVersion, "go")), Licenses: []license{{licenseID{"BSD-3-Clause"}}},
	}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		c := component{Type: "library", Name: module.Path, Version: module.Version, PURL: purl(module.Path, module.Version)}
		if module.Sum != "" {
			// As in go.sum: of the module's tree, not of one file, so it is none of CycloneDX's hashes.
			c.Properties = []property{{"go:sum", module.Sum}}
		}
		components = append(components, c)
	}
	needs := dependency{Ref: main.Ref, DependsOn: []string{}}
	for i := range components {
		components[i].Ref = components[i].PURL
		needs.DependsOn = append(needs.DependsOn, components[i].Ref)
	}
	slices.SortFunc(components, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	slices.Sort(needs.DependsOn)
	return document{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		// Of the binary, so that the same binary has the same.
		SerialNumber: "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceOID, sum[:]).String(),
		Metadata:     metadata{main}, Components: components, Dependencies: []dependency{needs},
	}
}

// purl is the package URL of a Go module (github.com/package-url/purl-spec, type golang).
func purl(path, version string) string {
	p := "pkg:golang/" + path
	if version != "" && version != "(devel)" {
		p += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return p
}
