package simaws

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxParameters is the most names of one GetParameters call:
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
const maxParameters = 10

// internalSSM is the service's own failure, the only error whose message is
// spelt Message.
const internalSSM = "InternalServerError"

// parameter is one parameter of type String.
type parameter struct {
	name, value, arn string
	modifiedAt       time.Time
}

// Bottlerocket is one published image.
type Bottlerocket struct {
	Variant string // such as aws-k8s-1.35-fips
	Arch    string // x86_64 or arm64
	Version string // such as 1.57.0
	Build   string // such as 5ed15786
	ImageID string
	// Latest makes it the one that latest names.
	Latest bool
}

// AddBottlerocket publishes the parameters of an image, which every account
// can read:
// https://github.com/bottlerocket-os/bottlerocket/blob/develop/tools/pubsys/policies/ssm/README.md
func (s *Server) AddBottlerocket(b Bottlerocket) {
	full := b.Version + "-" + b.Build
	names := []string{full, b.Version}
	if b.Latest {
		names = append(names, "latest")
	}
	for _, name := range names {
		root := "/aws/service/bottlerocket/" + b.Variant + "/" + b.Arch + "/" + name
		s.AddParameter(root+"/image_id", b.ImageID)
		s.AddParameter(root+"/image_version", full)
	}
}

// AddParameter sets a parameter of type String. One below /aws/service/ is
// public: "public parameters are ... owned by AWS", so that its ARN has no
// account. https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-public-parameters.html
func (s *Server) AddParameter(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	account := s.cfg.AccountID
	if strings.HasPrefix(name, "/aws/service/") {
		account = ""
	}
	s.parameters[name] = parameter{
		name: name, value: value, modifiedAt: time.Now(),
		arn: "arn:aws:ssm:" + s.cfg.Region + ":" + account + ":parameter/" + strings.TrimPrefix(name, "/"),
	}
}

type parameterItem struct {
	ARN, DataType, Name, Type, Value string
	LastModifiedDate                 epoch
	Selector                         string `json:",omitempty"`
	Version                          int
}

// ssm runs one action of Systems Manager:
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_Operations.html
func (s *Server) ssm(c call, kind FaultKind) (any, error) {
	switch c.action {
	case "GetParameter":
		return s.getParameter(c, kind)
	case "GetParameters":
		return s.getParameters(c, kind)
	}
	return nil, unknownOperation()
}

// getParameter: https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html
func (s *Server) getParameter(c call, kind FaultKind) (any, error) {
	var in struct {
		Name           string
		WithDecryption bool
	}
	if err := decode(c, &in); err != nil {
		return nil, err
	}
	if in.Name == "" {
		return nil, invalid("name", "null", "Member must not be null")
	}
	found, code := s.findParameter(in.Name, kind)
	if code != "" {
		return nil, &apiError{http.StatusBadRequest, code, ""}
	}
	return struct{ Parameter parameterItem }{found}, nil
}

// getParameters answers for the names that exist and lists the others. The
// wording: github.com/remind101/ssm-env#10.
func (s *Server) getParameters(c call, kind FaultKind) (any, error) {
	var in struct {
		Names          []string
		WithDecryption bool
	}
	if err := decode(c, &in); err != nil {
		return nil, err
	}
	switch shown := "'[" + strings.Join(in.Names, ", ") + "]'"; {
	case in.Names == nil:
		return nil, invalid("names", "null", "Member must not be null")
	case len(in.Names) == 0:
		return nil, invalid("names", shown, "Member must have length greater than or equal to 1")
	case len(in.Names) > maxParameters:
		return nil, invalid("names", shown, "Member must have length less than or equal to 10")
	}
	out := struct {
		Parameters        []parameterItem
		InvalidParameters []string
	}{[]parameterItem{}, []string{}}
	for _, name := range in.Names {
		if found, code := s.findParameter(name, kind); code == "" {
			out.Parameters = append(out.Parameters, found)
		} else if !slices.Contains(out.InvalidParameters, name) {
			out.InvalidParameters = append(out.InvalidParameters, name)
		}
	}
	return out, nil
}

// findParameter takes a name or an ARN, and after a colon a version, of which
// there is only the first, or a label, of which there are none. It returns the
// error's code for what does not exist.
func (s *Server) findParameter(asked string, kind FaultKind) (parameterItem, string) {
	for _, p := range s.parameters {
		for _, known := range []string{p.name, p.arn} {
			selector, ok := strings.CutPrefix(asked, known)
			switch {
			case !ok || selector != "" && selector[0] != ':' || kind == Stale:
				continue
			case selector != "" && selector != ":1":
				return parameterItem{}, "ParameterVersionNotFound"
			}
			return parameterItem{
				ARN: p.arn, DataType: "text", Name: p.name, Type: "String", Value: p.value,
				LastModifiedDate: epoch(p.modifiedAt), Selector: selector, Version: 1,
			}, ""
		}
	}
	return parameterItem{}, "ParameterNotFound"
}
