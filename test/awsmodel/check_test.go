package awsmodel

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
)

// answer is what came over the wire.
type answer struct {
	operation string
	status    int
	header    http.Header
	body      []byte
}

// newer are members that the SDK has and an older botocore may not know: since
// August 2026 TerminateInstanceInAutoScalingGroup ends many members at once.
func newer(path string) bool {
	return path == "TerminateInstanceInAutoScalingGroup.Activities"
}

// common are the codes that any operation of a service may answer, by protocol,
// and that models do not repeat; the pages CommonErrors of the API references.
func common(protocol string) []string {
	if protocol == "query" {
		return []string{
			"AccessDenied", "ExpiredToken", "InvalidAction", "InvalidClientTokenId", "InvalidParameterValue", "MissingAction",
			"MissingAuthenticationToken", "RequestExpired", "ServiceUnavailable", "SignatureDoesNotMatch", "Throttling", "ValidationError",
		}
	}
	return []string{
		"AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException", "MissingAuthenticationTokenException",
		"SerializationException", "ThrottlingException", "UnknownOperationException", "UnrecognizedClientException", "ValidationException",
	}
}

// checker walks answers against a model and collects what does not fit.
type checker struct {
	model    model
	problems []string
}

func (c *checker) complain(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// check walks one answer of a known operation.
func (m model) check(a answer) []string {
	c := &checker{model: m}
	op, known := m.Operations[a.operation]
	switch {
	case !known:
		c.complain("%s is not an operation of the service", a.operation)
	case a.header.Get("X-Amzn-Requestid") == "":
		c.complain("%s: no request id in the header", a.operation)
	case m.Metadata.Protocol == "ec2" || m.Metadata.Protocol == "query":
		c.xml(a, op)
	default:
		c.json(a, op)
	}
	return c.problems
}

func (c *checker) json(a answer, op operation) {
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		c.complain("%s: not JSON: %v", a.operation, err)
		return
	}
	want := map[string]string{"json": "application/x-amz-json-1.1", "rest-json": "application/json"}[c.model.Metadata.Protocol]
	if got := a.header.Get("Content-Type"); got != want {
		c.complain("%s: content type %q, want %q", a.operation, got, want)
	}
	if a.status < 300 {
		c.value(a.operation, *op.Output, v)
		return
	}
	fields, ok := v.(map[string]any)
	if !ok {
		c.complain("%s: the error is not an object", a.operation)
		return
	}
	code, _ := fields["__type"].(string)
	if c.model.Metadata.Protocol == "rest-json" {
		code = a.header.Get("X-Amzn-Errortype")
	}
	delete(fields, "__type")
	if s := c.code(a, op, code); s != nil {
		c.structure(a.operation+"."+code, *s, fields)
	} else if _, ok := fields["message"].(string); !ok || len(fields) != 1 {
		c.complain("%s: error %s with %v, want a message alone", a.operation, code, fields)
	}
}

// code checks an error's code and status, and returns its shape if the
// operation models it.
func (c *checker) code(a answer, op operation, code string) *shape {
	for _, e := range op.Errors {
		s := c.model.Shapes[e.Shape]
		if code != e.Shape && (s.Error.Code == "" || code != s.Error.Code) {
			continue
		}
		if code == e.Shape && s.Error.Code != "" && code != s.Error.Code {
			c.complain("%s: error %s goes by %s on the wire", a.operation, code, s.Error.Code)
		}
		if want := s.Error.HTTPStatusCode; want != 0 && want != a.status {
			c.complain("%s: error %s with status %d, want %d", a.operation, code, a.status, want)
		}
		return &s
	}
	if !slices.Contains(common(c.model.Metadata.Protocol), code) {
		c.complain("%s: error %q is neither modelled nor common", a.operation, code)
	}
	return nil
}

// value walks a JSON value.
func (c *checker) value(path string, r ref, v any) {
	s := c.model.Shapes[r.Shape]
	switch s.Type {
	case "structure":
		if fields, ok := v.(map[string]any); ok {
			c.structure(path, s, fields)
			return
		}
	case "list":
		if list, ok := v.([]any); ok {
			for i, e := range list {
				c.value(path+"["+strconv.Itoa(i)+"]", *s.Member, e)
			}
			return
		}
	case "map":
		if entries, ok := v.(map[string]any); ok {
			for k, e := range entries {
				c.value(path+"["+k+"]", *s.Value, e)
			}
			return
		}
	case "boolean":
		if _, ok := v.(bool); ok {
			return
		}
	case "string", "character", "blob":
		if text, ok := v.(string); ok {
			c.scalar(path, r, s, text)
			return
		}
	case "timestamp":
		// "Timestamps ... are serialized as epoch-seconds by default."
		if _, ok := v.(json.Number); ok && s.TimestampFormat == "" && r.TimestampFormat == "" {
			return
		}
	default:
		if n, ok := v.(json.Number); ok {
			c.scalar(path, r, s, n.String())
			return
		}
	}
	c.complain("%s: %v is not a %s", path, v, s.Type)
}

func (c *checker) structure(path string, s shape, fields map[string]any) {
	for name, v := range fields {
		member, ok := c.member(s, name)
		switch {
		case ok:
			c.value(path+"."+name, s.Members[member], v)
		case !newer(path + "." + name):
			c.complain("%s.%s: unknown", path, name)
		}
	}
	for _, name := range s.Required {
		if _, ok := fields[wireName(name, s.Members[name])]; !ok {
			c.complain("%s.%s: required but missing", path, name)
		}
	}
}

// member is the member with this name on the wire.
func (c *checker) member(s shape, wire string) (string, bool) {
	for name, r := range s.Members {
		if wireName(name, r) == wire {
			return name, true
		}
	}
	return "", false
}

func wireName(member string, r ref) string {
	if r.LocationName != "" {
		return r.LocationName
	}
	return member
}

var (
	iso8601 = regexp.MustCompile(`\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\z`)
	decimal = regexp.MustCompile(`\A-?\d+(\.\d+)?\z`)
)

// scalar checks what is written as text in either format.
func (c *checker) scalar(path string, r ref, s shape, text string) {
	fits := true
	switch s.Type {
	case "integer", "long":
		_, err := strconv.ParseInt(text, 10, 64)
		fits = err == nil
	case "float", "double":
		fits = decimal.MatchString(text)
	case "boolean":
		fits = text == "true" || text == "false"
	case "timestamp":
		fits = iso8601.MatchString(text) && (r.TimestampFormat == "" || r.TimestampFormat == "iso8601")
	case "blob":
		_, err := base64.StdEncoding.DecodeString(text)
		fits = err == nil
	}
	if !fits {
		c.complain("%s: %q is not a %s", path, text, s.Type)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
		c.complain("%s: %q is none of %v", path, text, s.Enum)
	}
}
