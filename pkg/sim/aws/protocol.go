package simaws

import (
	"bytes"
	"cmp"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The services, by the names in credential scopes.
const (
	serviceEC2         = "ec2"
	serviceAutoScaling = "autoscaling"
	serviceSTS         = "sts"
	serviceIAM         = "iam"
	serviceKMS         = "kms"
	serviceSSM         = "ssm"
	serviceEKS         = "eks"
)

// protocol is how a service speaks; https://smithy.io/2.0/aws/protocols/
// describes each.
type protocol int

const (
	ec2Query protocol = iota
	query
	jsonRPC // AWS JSON 1.1
	restJSON
)

// speaks is the protocol of a service.
func speaks(service string) protocol {
	switch service {
	case serviceAutoScaling, serviceSTS, serviceIAM:
		return query
	case serviceKMS, serviceSSM:
		return jsonRPC
	case serviceEKS:
		return restJSON
	}
	return ec2Query
}

// namespace is that of a query service's answers.
func namespace(service string) string {
	switch service {
	case serviceSTS:
		return "https://sts.amazonaws.com/doc/" + versionSTS + "/"
	case serviceIAM:
		return "https://iam.amazonaws.com/doc/" + versionIAM + "/"
	}
	return "http://autoscaling.amazonaws.com/doc/" + versionAutoScaling + "/"
}

// jsonType is the content type of AWS JSON 1.1.
const jsonType = "application/x-amz-json-1.1"

// parse reads a request and checks who sent it.
func (s *Server) parse(r *http.Request, body []byte, now time.Time) (call, *apiError) {
	form, err := url.ParseQuery(string(body))
	if err != nil || r.Method == http.MethodGet {
		form = r.URL.Query()
	}
	c := call{service: addressed(r, form), form: form, body: body}
	switch speaks(c.service) {
	case jsonRPC:
		_, c.action, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	case restJSON:
		c.action, c.path = route(r)
	default:
		c.action = form.Get("Action")
	}
	if c.service == serviceSTS && c.action == assumeWithToken {
		// "Calling AssumeRoleWithWebIdentity does not require the use of
		// Amazon Web Services security credentials", its API reference.
		return c, nil
	}
	var refused *apiError
	c.caller, refused = s.authenticate(r, body, c.service, now)
	if refused == nil && speaks(c.service) == jsonRPC {
		refused = checkJSON(r, body)
	}
	return c, refused
}

// addressed is the service that a request is for. The services share this one
// address, so what only one of them understands decides: the target of AWS
// JSON, the path of EKS, then the scope of the signature, and for requests
// that are not signed the version of the API.
func addressed(r *http.Request, form url.Values) string {
	target, _, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch {
	case target == "TrentService":
		return serviceKMS
	case target == "AmazonSSM":
		return serviceSSM
	case strings.HasPrefix(r.URL.Path, "/clusters"):
		return serviceEKS
	}
	if c, signed := parseAuthorization(r.Header.Get("Authorization")); signed {
		known := []string{serviceAutoScaling, serviceSTS, serviceIAM, serviceKMS, serviceSSM, serviceEKS}
		if slices.Contains(known, c.service) {
			return c.service
		}
		return serviceEC2
	}
	switch form.Get("Version") {
	case versionSTS:
		return serviceSTS
	case versionIAM:
		return serviceIAM
	case versionAutoScaling:
		return serviceAutoScaling
	}
	return serviceEC2
}

// checkJSON refuses what is not a request of AWS JSON 1.1:
// https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
func checkJSON(r *http.Request, body []byte) *apiError {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/" || err != nil || media != jsonType:
		return &apiError{http.StatusNotFound, "UnknownOperationException", ""}
	case !json.Valid(body):
		return &apiError{http.StatusBadRequest, "SerializationException", "Unexpected character in the body"}
	}
	return nil
}

// other runs an action of the services besides EC2 and Auto Scaling.
func (s *Server) other(c call, kind FaultKind, now time.Time) (any, error) {
	switch c.service {
	case serviceSTS:
		return s.sts(c, kind, now)
	case serviceIAM:
		return s.iam(c, kind)
	case serviceKMS:
		return s.kms(c, kind)
	case serviceSSM:
		return s.ssm(c, kind)
	}
	return s.eks(c, kind)
}

// names is what a request is about, for the log.
func (c call) names() []string {
	switch speaks(c.service) {
	case restJSON:
		return c.path
	case jsonRPC:
		var in struct {
			KeyId, Name string
			Names       []string
		}
		if json.Unmarshal(c.body, &in) != nil {
			return nil
		}
		if one := cmp.Or(in.KeyId, in.Name); one != "" {
			return []string{one}
		}
		return in.Names
	}
	if one := cmp.Or(c.form.Get("RoleArn"), c.form.Get("RoleName")); one != "" {
		return []string{one}
	}
	return namedIDs(c.form)
}

// jsonRefusal is a fault in the words of a JSON service. KMS and Systems
// Manager have 400 for every fault of the caller, EKS has a status for each:
// https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html
// https://docs.aws.amazon.com/eks/latest/APIReference/CommonErrors.html
func (f Fault) jsonRefusal(service string) *apiError {
	throttled, forbidden := http.StatusBadRequest, http.StatusBadRequest
	if service == serviceEKS {
		throttled, forbidden = http.StatusTooManyRequests, http.StatusForbidden
	}
	switch f.Kind {
	case Throttle:
		return &apiError{throttled, "ThrottlingException", "Rate exceeded"}
	case Unavailable:
		if service == serviceSSM {
			return &apiError{http.StatusInternalServerError, internalSSM, "The service is unavailable."}
		}
		code := map[string]string{serviceKMS: "DependencyTimeoutException", serviceEKS: "ServiceUnavailableException"}[service]
		return &apiError{http.StatusServiceUnavailable, code, "The service is unavailable."}
	case Unauthorized:
		return &apiError{forbidden, "AccessDeniedException", "User is not authorized to perform this operation"}
	}
	return nil
}

// jsonFailure is an error in a JSON protocol: AWS JSON has its name in the
// body, REST JSON in a header.
type jsonFailure struct {
	Type    string `json:"__type,omitempty"`
	Message string `json:"message,omitempty"`
	// Upper is the message where the service's model has it as Message.
	Upper string `json:"Message,omitempty"`
	// EKS repeats what was not found.
	Cluster   string `json:"clusterName,omitempty"`
	Nodegroup string `json:"nodegroupName,omitempty"`
	header    string
}

func jsonError(c call, e *apiError) any {
	switch {
	case e.code == internalSSM:
		return jsonFailure{Type: e.code, Upper: e.message}
	case c.service != serviceEKS:
		return jsonFailure{Type: e.code, Message: e.message}
	}
	out := jsonFailure{Message: e.message, header: e.code}
	if e.code == notFoundEKS {
		out.Cluster, out.Nodegroup = c.path[0], c.path[1]
	}
	return out
}

// writeJSON sends an answer of AWS JSON 1.1 or REST JSON.
func writeJSON(w http.ResponseWriter, c call, status int, answer any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(answer); err != nil {
		http.Error(w, "encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	if c.service == serviceEKS {
		w.Header().Set("Content-Type", "application/json")
	}
	if failure, ok := answer.(jsonFailure); ok && failure.header != "" {
		w.Header().Set("X-Amzn-Errortype", failure.header)
	}
	w.Header().Set("X-Amzn-Requestid", c.id)
	w.WriteHeader(status)
	// A client that went away is no concern of the service.
	_, _ = w.Write(bytes.TrimSpace(b.Bytes()))
}

// epoch is a timestamp in JSON: seconds with a fraction.
type epoch time.Time

// MarshalJSON has milliseconds, as the services do.
func (e epoch) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(e).UnixMilli())/1000, 'f', 3, 64), nil
}

// decode reads the members of a JSON request.
func decode(c call, in any) error {
	if err := json.Unmarshal(c.body, in); err != nil {
		return &apiError{http.StatusBadRequest, "SerializationException", err.Error()}
	}
	return nil
}

// invalid is a violated constraint in the words of the JSON services.
func invalid(member, value, constraint string) error {
	return &apiError{http.StatusBadRequest, "ValidationException",
		"1 validation error detected: Value " + value + " at '" + member + "' failed to satisfy constraint: " + constraint}
}

// unknownOperation is the answer of the JSON services to an action that they
// do not have.
func unknownOperation() error {
	return &apiError{http.StatusBadRequest, "UnknownOperationException", ""}
}
