// Command openapi cuts the part that the simulator serves out of GitHub's
// OpenAPI description, so that tests can hold each of its answers against it.
// The input is a file of the npm package @octokit/openapi, which repackages
// https://github.com/github/rest-api-description under the MIT licence:
//
//	npm pack @octokit/openapi@23.0.2 && tar -xzf octokit-openapi-23.0.2.tgz
//	go run ./test/openapi -in package/generated/ghec.json -out pkg/sim/github/testdata/openapi.json.gz
//
// The output is the same, byte for byte, for the same input and list. An
// operation that the description does not have is an error.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	in := flag.String("in", "", "GitHub's description, JSON")
	out := flag.String("out", "", "where the extract goes, JSON under gzip")
	flag.Parse()
	if err := run(*in, *out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	if in == "" || out == "" {
		return errors.New("both -in and -out are needed")
	}
	text, err := os.ReadFile(in)
	if err != nil {
		return fmt.Errorf("reading the description: %w", err)
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("reading the description %s: %w", in, err)
	}
	cut, err := extract(doc, operations, webhooks)
	if err != nil {
		return fmt.Errorf("cutting %s: %w", in, err)
	}
	packed, err := pack(cut)
	if err != nil {
		return fmt.Errorf("packing the extract: %w", err)
	}
	if err := os.WriteFile(out, packed, 0o644); err != nil {
		return fmt.Errorf("writing the extract: %w", err)
	}
	return nil
}

// pack writes no time and no name into the gzip header, and json.Marshal sorts
// the keys: equal input gives equal bytes.
func pack(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
