package simaws

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// podSession is how long credentials of Pod Identity live. The reference does
// not say; this is assumed.
const podSession = 6 * time.Hour

// PodAssociation gives the pods of a service account a role, as
// CreatePodIdentityAssociation does. The role must let Pods assume it.
type PodAssociation struct {
	Cluster, Namespace, ServiceAccount, RoleARN string
	// Session replaces how long the credentials live; 6 hours if zero.
	Session time.Duration
}

// AddPodAssociation gives a service account its role; issuer is the cluster's
// own, which signs the pods' tokens.
func (s *Server) AddPodAssociation(a PodAssociation, issuer Issuer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Session == 0 {
		a.Session = podSession
	}
	// "This value is always pods.eks.amazonaws.com":
	// https://docs.aws.amazon.com/eks/latest/APIReference/API_auth_AssumeRoleForPodIdentity.html
	issuer.Audiences = []string{audiencePods}
	s.podTokens[issuer.URL] = issuer
	s.associations = append(s.associations, a)
}

// podCredentials is the agent's answer:
// github.com/aws/eks-pod-identity-agent, pkg/credentials/model.go
type podCredentials struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	Token           string
	AccountID       string `json:"AccountId"`
	Expiration      time.Time
}

// PodIdentityAgent is the agent that runs on every node of an EKS cluster: it
// answers at /v1/credentials with the credentials of the pod whose token is
// the Authorization header. Its faults have the action AssumeRoleForPodIdentity.
// https://docs.aws.amazon.com/eks/latest/APIReference/API_auth_AssumeRoleForPodIdentity.html
func (s *Server) PodIdentityAgent() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/credentials", func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		c := call{service: "eks-auth", action: "AssumeRoleForPodIdentity"}
		s.mu.Lock()
		c.id = s.uuid()
		fault := s.takeFault(c.action)
		if fault.Kind == Hang {
			s.log(c, now, 0, "")
			s.mu.Unlock()
			<-r.Context().Done()
			return
		}
		out, refused := s.podCredentials(r.Header.Get("Authorization"), fault, now)
		status, code := http.StatusOK, ""
		if refused != nil {
			status, code = refused.status, refused.code
		}
		s.log(c, now, status, code)
		s.mu.Unlock()
		if refused != nil {
			// Plain text, as pkg/errors/errors.go of the agent makes it.
			http.Error(w, "["+c.id+"]: ("+code+"): "+refused.message+", fault: client", status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// A pod that went away is no concern of the agent.
		_ = json.NewEncoder(w).Encode(out)
	})
	return mux
}

func (s *Server) podCredentials(token string, f Fault, now time.Time) (podCredentials, *apiError) {
	switch f.Kind {
	case Throttle:
		return podCredentials{}, &apiError{http.StatusTooManyRequests, "ThrottlingException", "Rate exceeded"}
	case Unavailable:
		return podCredentials{}, &apiError{http.StatusServiceUnavailable, "ServiceUnavailableException", "The service is unavailable."}
	case Unauthorized:
		return podCredentials{}, &apiError{http.StatusBadRequest, "AccessDeniedException",
			"Unauthorized Exception! EKS does not have permissions to assume the associated role."}
	}
	if token == "" {
		return podCredentials{}, &apiError{http.StatusBadRequest, "InvalidParameterException", "Service account token cannot be empty"}
	}
	who, refused := verify(token, s.podTokens, now)
	if refused != nil {
		// "The specified Kubernetes service account token is invalid", or
		// "expired": the API has names of its own for what STS says.
		refused.code = map[bool]string{true: "ExpiredTokenException", false: "InvalidTokenException"}[refused.code == "ExpiredTokenException"]
		return podCredentials{}, refused
	}
	pod := who.Kubernetes
	i := slices.IndexFunc(s.associations, func(a PodAssociation) bool {
		return a.Namespace == pod.Namespace && a.ServiceAccount == pod.ServiceAccount.Name
	})
	if i < 0 || f.Kind == Stale {
		return podCredentials{}, &apiError{http.StatusNotFound, "ResourceNotFoundException",
			"Pod identity association not found for " + pod.Namespace + "/" + pod.ServiceAccount.Name}
	}
	a := s.associations[i]
	r := s.roleByARN(a.RoleARN)
	if r == nil || !r.Pods {
		return podCredentials{}, &apiError{http.StatusBadRequest, "AccessDeniedException",
			"Unauthorized Exception! EKS does not have permissions to assume the associated role."}
	}
	// "The role session name part ... follows this format:
	// eks-clustername-podname-random UUID".
	key, made := s.newSession(r, "eks-"+a.Cluster+"-"+pod.Pod.Name+"-"+s.uuid(), now.Add(a.Session))
	return podCredentials{key, made.secret, made.token, s.cfg.AccountID, made.expires.UTC()}, nil
}
