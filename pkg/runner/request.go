package runner

import "time"

// Request is one request of ours to end a host, refused ones included.
type Request struct {
	// Call is the operation as the cloud's permissions name it.
	Call string    `json:"call" pat:"word"`
	At   time.Time `json:"at"`
	// RequestID, AccessKeyID and Session are empty when they are unknown: an
	// answer that was lost carries no id. The key's id is no secret; it is what
	// the audit trail names the caller by.
	RequestID   string `json:"requestId,omitempty" pat:"word,opt"`
	AccessKeyID string `json:"accessKeyId,omitempty" pat:"accesskey,opt"`
	Session     string `json:"session,omitempty" pat:"arn,opt"`
	// Code is the error that answered it, empty when it was accepted.
	Code string `json:"code,omitempty" pat:"word,opt"`
}

// Recordable is the request without what does not have the shape of its field:
// an odd answer of the cloud must not keep the end of a host from being
// recorded.
func (q Request) Recordable() Request {
	out := Request{Call: q.Call, At: q.At}
	for _, keep := range []func(*Request){
		func(r *Request) { r.RequestID = q.RequestID },
		func(r *Request) { r.AccessKeyID = q.AccessKeyID },
		func(r *Request) { r.Session = q.Session },
		func(r *Request) { r.Code = q.Code },
	} {
		trial := out
		if keep(&trial); Validate(trial) == nil {
			out = trial
		}
	}
	return out
}
