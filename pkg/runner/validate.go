package runner

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"time"
)

// patterns are the only shapes a string in the ledger may have. There is no
// pattern for free text: the log is under Object Lock in COMPLIANCE mode, and
// nobody can delete a secret or a patient's name from it for six years.
var patterns = map[string]*regexp.Regexp{
	"digest":   regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`),
	"job":      regexp.MustCompile(`\A[0-9A-Za-z][0-9A-Za-z-]{0,63}\z`),
	"name":     regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z`),
	"dns":      regexp.MustCompile(`\A[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\z`),
	"repo":     regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}\z`),
	"login":    regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,99}(\[bot\])?\z`),
	"slug":     regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_./-]{0,99}\z`),
	"gitref":   regexp.MustCompile(`\Arefs/[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}\z`),
	"workflow": regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._/-]{0,299}@[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}\z`),
	"sha":      regexp.MustCompile(`\A[0-9a-f]{40}([0-9a-f]{24})?\z`),
	"env":      regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z`),
	"label":    regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z`),
	"word":     regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\z`),
	"host":     regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z`),
	"provider": regexp.MustCompile(`\A[a-z]{2,10}://[A-Za-z0-9._/-]{1,200}\z`),
	"os":       regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9 .()_/+-]{0,99}\z`),
	"ip":       regexp.MustCompile(`\A[0-9a-f][0-9a-f.:]{1,44}\z`),
	"nameid":   regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._%+@-]{0,199}\z`),
	"subject":  regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._:/@%=-]{0,255}\z`),
	"gitver":   regexp.MustCompile(`\Av?[0-9][A-Za-z0-9.+_-]{0,63}\z`),
	"path":     regexp.MustCompile(`\A[A-Za-z0-9.][A-Za-z0-9._/-]{0,199}\z`),
	"keyid":    regexp.MustCompile(`\A[0-9a-f]{64}\z`),
	"hex":      regexp.MustCompile(`\A([0-9a-f]{2}){1,256}\z`),
	"origin":   regexp.MustCompile(`\A[a-z0-9][a-z0-9.-]{0,99}(/[a-z0-9._-]{1,50}){0,5}\z`), // a log's has four parts at most, a year's one more
	"arn":      regexp.MustCompile(`\Aarn:aws(-[a-z]+)*:[a-z0-9-]{1,32}:[a-z0-9-]{0,32}:[0-9]{0,12}:[A-Za-z0-9/_+=,.@:-]{1,400}\z`),
	"param":    regexp.MustCompile(`\A/[A-Za-z0-9._/-]{1,255}\z`),
	// An access key id has upper case letters and digits only: no token, key or
	// secret of AWS or GitHub can have that shape.
	"accesskey": regexp.MustCompile(`\A[A-Z0-9]{16,128}\z`),
	"url":       regexp.MustCompile(`\Ahttps?://[A-Za-z0-9.:_/\[\]-]{1,200}\z`),
}

// secretShape catches what looks like a credential even where a pattern would
// let its characters through: GitHub tokens, JWTs, AWS access key ids, PEM.
var secretShape = regexp.MustCompile(`gh[pousr]_[A-Za-z0-9]|github_pat_|eyJ[A-Za-z0-9_-]{8}|A[SK]IA[A-Z0-9]{12}|-----BEGIN`)

// maxList bounds every list in a record.
const maxList = 256

// Validate checks every string of a record against the pattern its field is
// tagged with. An empty string passes only in a field tagged omitempty or
// pat:"...,opt". It returns every problem, joined; each names its field.
func Validate(v any) error { return validate(reflect.ValueOf(v), "", "") }

func validate(v reflect.Value, path, tag string) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return validate(v.Elem(), path, tag)
	case reflect.String:
		return validateString(v.String(), path, tag)
	case reflect.Slice:
		return validateSlice(v, path, tag)
	case reflect.Struct:
		return validateStruct(v, path)
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint64:
		return nil
	default:
		return fmt.Errorf("%s: a record may not hold a %s", path, v.Kind())
	}
}

func validateStruct(v reflect.Value, path string) error {
	if v.Type() == reflect.TypeFor[time.Time]() {
		return nil
	}
	var problems []error
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Name
		if path != "" {
			name = path + "." + name
		}
		problems = append(problems, validate(v.Field(i), name, field.Tag.Get("pat")))
	}
	return errors.Join(problems...)
}

func validateSlice(v reflect.Value, path, tag string) error {
	if v.Len() > maxList {
		return fmt.Errorf("%s: %d entries, at most %d", path, v.Len(), maxList)
	}
	var problems []error
	for i := range v.Len() {
		problems = append(problems, validate(v.Index(i), fmt.Sprintf("%s[%d]", path, i), tag))
	}
	return errors.Join(problems...)
}

func validateString(s, path, tag string) error {
	name, optional := tag, false
	if n := len(tag) - len(",opt"); n > 0 && tag[n:] == ",opt" {
		name, optional = tag[:n], true
	}
	pattern, ok := patterns[name]
	switch {
	case !ok:
		return fmt.Errorf("%s: no pattern %q: a record may not hold free text", path, tag)
	case s == "" && optional:
		return nil
	case !pattern.MatchString(s):
		return fmt.Errorf("%s: does not have the shape %q", path, name)
	case name != "accesskey" && secretShape.MatchString(s):
		return fmt.Errorf("%s: looks like a credential", path)
	}
	return nil
}
