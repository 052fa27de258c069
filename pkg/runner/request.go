package runner

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
