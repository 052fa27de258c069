package identitydoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"
	"unicode/utf8"
)

// fields are all that a document of version 2017-09-30 has. An optional one
// may be null or absent; lists are product codes.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/retrieve-iid.html
var fields = map[string]struct {
	list, optional bool
	form           *regexp.Regexp
}{
	"accountId":               {form: regexp.MustCompile(`\A[0-9]{12}\z`)},
	"architecture":            {form: regexp.MustCompile(`\A[a-z0-9_]{1,20}\z`)},
	"availabilityZone":        {form: regexp.MustCompile(`\A[a-z0-9-]{1,40}\z`)},
	"billingProducts":         {list: true, optional: true, form: regexp.MustCompile(`\A[a-z0-9-]{1,40}\z`)},
	"devpayProductCodes":      {list: true, optional: true, form: regexp.MustCompile(`\A[A-Za-z0-9-]{1,64}\z`)},
	"marketplaceProductCodes": {list: true, optional: true, form: regexp.MustCompile(`\A[A-Za-z0-9-]{1,64}\z`)},
	"imageId":                 {form: regexp.MustCompile(`\Aami-[0-9a-f]{8,17}\z`)},
	"instanceId":              {form: regexp.MustCompile(`\Ai-[0-9a-f]{8,17}\z`)},
	"instanceType":            {form: regexp.MustCompile(`\A[a-z0-9-]{1,32}\.[a-z0-9-]{1,32}\z`)},
	"kernelId":                {optional: true, form: regexp.MustCompile(`\Aaki-[0-9a-f]{8,17}\z`)},
	"pendingTime":             {form: regexp.MustCompile(`\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\z`)},
	"privateIp":               {optional: true, form: regexp.MustCompile(`\A[0-9a-f][0-9a-f.:]{1,44}\z`)},
	"ramdiskId":               {optional: true, form: regexp.MustCompile(`\Aari-[0-9a-f]{8,17}\z`)},
	"region":                  {form: regionName},
	"version":                 {form: regexp.MustCompile(`\A2017-09-30\z`)},
}

// maxList bounds a document's lists of product codes.
const maxList = 32

// document is a decoded document: the strings by their exact name.
type document struct {
	text    map[string]string
	pending time.Time
}

// decode reads a document strictly. encoding/json alone would match names
// without regard to case and let the last of two equal ones win: a reader with
// other habits would then see another document under the same signature.
func decode(b []byte) (document, error) {
	doc := document{text: map[string]string{}}
	if !utf8.Valid(b) {
		return doc, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return doc, errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return doc, errors.New("not a JSON object")
		}
		if seen[name] {
			return doc, fmt.Errorf("%.40q is there twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return doc, fmt.Errorf("%.40q: %w", name, err)
		}
		if err := doc.take(name, value); err != nil {
			return doc, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return doc, errors.New("the JSON object has no end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return doc, errors.New("something follows the JSON object")
	}
	for name, field := range fields {
		if !seen[name] && !field.optional {
			return doc, fmt.Errorf("%q is missing", name)
		}
	}
	var err error
	if doc.pending, err = time.Parse(time.RFC3339, doc.text["pendingTime"]); err != nil {
		return doc, fmt.Errorf(`"pendingTime": %w`, err)
	}
	return doc, nil
}

func (d *document) take(name string, value json.RawMessage) error {
	field, known := fields[name]
	switch {
	case !known:
		return fmt.Errorf("%.40q is not a field of an instance identity document", name)
	case string(value) == "null" && field.optional:
		return nil
	case field.list:
		var list []string
		if json.Unmarshal(value, &list) != nil || len(list) > maxList {
			return fmt.Errorf("%q is not a list of at most %d strings", name, maxList)
		}
		for _, s := range list {
			if !field.form.MatchString(s) {
				return fmt.Errorf("%q does not have the form of its field", name)
			}
		}
		return nil
	}
	var s string
	if json.Unmarshal(value, &s) != nil || !field.form.MatchString(s) {
		return fmt.Errorf("%q does not have the form of its field", name)
	}
	d.text[name] = s
	return nil
}
