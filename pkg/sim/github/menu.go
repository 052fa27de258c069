package simgithub

import "strings"

// FaultSpec is one line of the fault menu.
type FaultSpec struct {
	Kind FaultKind
	// What it looks like, and where it was seen.
	What, Seen string
	// Rewrites says that the fault spoils the answer to a request that had its
	// effect: it comes after the effect only. Disturbs says that it changes the
	// world and lets the request go on: it comes before the effect only. Any
	// other kind takes the place of the answer, before or after the effect.
	Rewrites, Disturbs bool
	// Where says which requests it can happen to; nil is all of them.
	Where func(method, path string) bool
}

// Before says that the fault can come before the effect of a request.
func (f FaultSpec) Before() bool { return !f.Rewrites }

// After says that the fault can come after the effect of a request.
func (f FaultSpec) After() bool { return !f.Disturbs }

// spec is the line of the menu for a kind; false if there is none.
func (k FaultKind) spec() (FaultSpec, bool) {
	for _, spec := range Menu() {
		if spec.Kind == k {
			return spec, true
		}
	}
	return FaultSpec{}, false
}

func isPoll(method, path string) bool { return method == "GET" && path == queuePath }

func isSession(method, path string) bool {
	return (method == "POST" || method == "PATCH") && strings.Contains(path, "/sessions")
}

// isRunner is where a runner asks for its session and its messages.
func isRunner(method, path string) bool {
	return method == "POST" && path == brokerPath+"/session" || method == "GET" && path == brokerPath+"/message"
}

func isREST(_, path string) bool { return strings.HasPrefix(path, restPath) }

func isService(_, path string) bool {
	return strings.HasPrefix(path, "/rest/") || strings.HasPrefix(path, queuePath)
}

func ends(suffix string) func(method, path string) bool {
	return func(_, path string) bool { return strings.HasSuffix(path, suffix) }
}

func isList(method, path string) bool {
	return method == "GET" && (strings.HasSuffix(path, "/runnergroups/") || strings.HasSuffix(path, "/runnerscalesets") || strings.HasSuffix(path, "/agents"))
}

// Menu is everything that can go wrong, so that a test can try all of it without
// a list of its own.
func Menu() []FaultSpec {
	return []FaultSpec{
		{Kind: FaultStatus, What: "an error status, 500 unless told", Seen: "docs: troubleshooting the REST API"},
		{Kind: FaultUnauthorized, What: "401: the token is not accepted (any more)", Seen: "actions/scaleset PR 123"},
		{Kind: FaultThrottled, What: "429 with Retry-After", Seen: "ARC PR 2255: the service answers 429 when many runners are made"},
		{Kind: FaultRateLimited, What: "403 with the primary rate limit used up", Seen: "docs: rate limits", Where: isREST},
		{Kind: FaultSecondaryLimit, What: "403 with Retry-After: the secondary rate limit", Seen: "docs: rate limits", Where: isREST},
		{Kind: FaultDrop, What: "the connection ends without an answer", Seen: "any network"},
		{Kind: FaultHang, What: "no answer until the client gives up", Seen: "ARC PR 4473"},
		{Kind: FaultTruncated, What: "200 and half of the body", Seen: "any network", Rewrites: true},
		{Kind: FaultEmpty, What: "200 without a body", Seen: "ARC#4285, ARC#4470"},
		{Kind: FaultNull, What: "200 and the body null", Seen: "actions/scaleset client.go: a nil registration token"},
		{Kind: FaultWrongType, What: "200 and a body of another JSON type", Seen: "read in the clients' decoders"},
		{Kind: FaultHTML, What: "an HTML page, 503 unless told", Seen: "GitHub's unicorn page"},
		{Kind: FaultText, What: "the service's error as text/plain, which the official client does not read", Seen: "actions/scaleset errors.go"},
		{Kind: FaultRedirect, What: "302 to another host", Seen: "renamed repositories, and whoever sits between"},
		{Kind: FaultEcho, What: "400 with the request's credential and body in its message", Seen: "proxies that explain"},
		{Kind: FaultClockSkew, What: "the Date header is ten minutes ahead", Seen: "hosts without NTP", Rewrites: true},
		{Kind: FaultByteOrderMark, What: "a UTF-8 byte order mark before the body", Seen: "actions/scaleset common_client.go", Rewrites: true, Where: isService},
		{Kind: FaultNullStatistics, What: "statistics are null", Seen: "panics the listener of actions/scaleset", Rewrites: true, Where: either(isPoll, isSession)},
		{Kind: FaultStaleStatistics, What: "the counters are of ghosts", Seen: "ARC#4397", Rewrites: true, Where: either(isPoll, isSession)},
		{Kind: FaultNoQueueURL, What: "messageQueueUrl is empty", Seen: "ARC#4370", Rewrites: true, Where: isSession},
		{Kind: FaultSessionGone, What: "the session is gone", Seen: "actions/scaleset PR 123", Disturbs: true, Where: either(isPoll, isSession)},
		{Kind: FaultDuplicateMessage, What: "the same items come again under a new id", Seen: "no promise of exactly once", Rewrites: true, Where: isPoll},
		{Kind: FaultUnknownMessage, What: "an unknown outer messageType", Seen: "actions/scaleset listener.go", Rewrites: true, Where: isPoll},
		{Kind: FaultUnknownItem, What: "one more item of an unknown type", Seen: "actions/scaleset client.go passes over it", Rewrites: true, Where: isPoll},
		{Kind: FaultPoisonItem, What: "one more item with a field of a wrong type", Seen: "cloudbase/garm#812", Rewrites: true, Where: isPoll},
		{Kind: FaultReversed, What: "the items of a message in reverse order", Seen: "actions/runner#3010", Rewrites: true, Where: isPoll},
		{Kind: FaultEarlyEnd, What: "JobCompleted beside JobStarted, while the job runs", Seen: "actions/runner#3010, #4492", Rewrites: true, Where: isPoll},
		{Kind: FaultLateStart, What: "JobStarted comes in a later message than JobCompleted", Seen: "no promise of an order", Rewrites: true, Where: isPoll},
		{Kind: FaultFalseEnd, What: "JobCompleted in a message of its own, while the job runs", Seen: "actions/runner#4492", Disturbs: true, Where: isPoll},
		{Kind: FaultGroupRenamed, What: "the runner group has another name from this request on", Seen: "any administrator", Disturbs: true},
		{Kind: FaultGroupOpened, What: "the runner group admits every repository and workflow from this request on", Seen: "any administrator", Disturbs: true},
		{Kind: FaultCountOnly, What: "count is 1 and the list is empty", Seen: "panics actions/scaleset client.go", Rewrites: true, Where: isList},
		{Kind: FaultNoToken, What: "the token is null", Seen: "panics actions/scaleset client.go", Rewrites: true, Where: either(ends("/registration-token"), ends("/runner-registration"), ends("/access_tokens"))},
		{Kind: FaultVersion, What: "403: the broker refuses the version of the runner", Seen: "ARC#4600; actions/runner BrokerErrorKind.cs", Where: isRunner},
		{Kind: FaultNoExpiry, What: "the service's token has no exp", Seen: "panics actions/scaleset client.go", Rewrites: true, Where: ends("/runner-registration")},
	}
}

func either(all ...func(string, string) bool) func(string, string) bool {
	return func(method, path string) bool {
		for _, one := range all {
			if one(method, path) {
				return true
			}
		}
		return false
	}
}
