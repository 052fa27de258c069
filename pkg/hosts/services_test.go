package hosts_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// services answers for the services beside EC2 and Auto Scaling: each request
// goes to the one that its signature names.
type services struct {
	sim  *simaws.Server
	also map[string]http.Handler
}

func (s services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, h := range s.also {
		if strings.Contains(r.Header.Get("Authorization"), "/"+name+"/aws4_request") {
			h.ServeHTTP(w, r)
			return
		}
	}
	s.sim.ServeHTTP(w, r)
}

// with is a driver of the world's group to which these services answer too.
func (w world) with(t *testing.T, also map[string]http.Handler, change func(*aws.Config, *hosts.Options)) *hosts.AutoScaling {
	t.Helper()
	cfg, opt := awsConfig(w.sim), hosts.Options{Region: region, Groups: []string{groupName}}
	cfg.HTTPClient = &http.Client{Transport: inProcess{services{w.sim, also}}}
	if change != nil {
		change(&cfg, &opt)
	}
	driver, err := hosts.NewAutoScaling(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	return driver
}

// caller is STS as far as GetCallerIdentity goes:
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
type caller struct {
	asked int
	arn   string
	fails int // how many calls are answered with an error first
}

func (i *caller) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.asked++
	w.Header().Set("Content-Type", "text/xml")
	if i.fails > 0 {
		i.fails--
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)
		return
	}
	fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>%s</Arn><UserId>AROA:pod</UserId><Account>%s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, i.arn, account)
}

// parameters is Systems Manager as far as GetParameters goes:
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
type parameters struct {
	asked  [][]string
	values map[string]string
	down   bool
}

func (p *parameters) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct{ Names []string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameters" || len(in.Names) > 10 || p.down {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"ValidationException"}`)
		return
	}
	p.asked = append(p.asked, in.Names)
	type parameter struct{ Name, Value string }
	var out struct {
		Parameters        []parameter
		InvalidParameters []string
	}
	for _, name := range in.Names {
		if v, ok := p.values[name]; ok {
			out.Parameters = append(out.Parameters, parameter{name, v})
		} else {
			out.InvalidParameters = append(out.InvalidParameters, name)
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		panic(err) // the recorder takes everything
	}
}
