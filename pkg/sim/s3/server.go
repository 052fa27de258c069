// Package sims3 simulates Amazon S3 as far as the ledger needs it: objects with
// versions, conditional puts and Object Lock. It keeps state, refuses what S3
// documents to refuse, and can be told to fail. It checks neither signatures
// nor permissions; test/s3 runs the same suite against a whole server.
package sims3

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bucket is how a bucket is set up.
type Bucket struct {
	// Owner is the account that it belongs to.
	Owner string
	// Versioned keeps versions; Locked has Object Lock, which needs them.
	Versioned, Locked bool
	// DefaultDays locks every new object by default when it is not zero.
	DefaultDays int
	// Forgets makes the bucket break its word: it takes lock headers and keeps
	// no lock.
	Forgets bool
}

// Op names an operation as the API reference does.
type Op string

// The operations that are served.
const (
	PutObject                  Op = "PutObject"
	GetObject                  Op = "GetObject"
	DeleteObject               Op = "DeleteObject"
	PutObjectRetention         Op = "PutObjectRetention"
	GetObjectRetention         Op = "GetObjectRetention"
	ListObjectsV2              Op = "ListObjectsV2"
	ListObjectVersions         Op = "ListObjectVersions"
	GetBucketVersioning        Op = "GetBucketVersioning"
	GetObjectLockConfiguration Op = "GetObjectLockConfiguration"
)

// Fault is how one request fails. The zero value does not.
type Fault struct {
	// Status and Code are answered instead of what S3 would say.
	Status int
	Code   string
	// Lost closes the connection instead of answering.
	Lost bool
	// Hangs answers nothing until the caller goes away.
	Hangs bool
	// Applied takes effect before the answer is spoilt.
	Applied bool
}

// Server is an [http.Handler] that serves buckets by path. It is safe for
// concurrent use.
type Server struct {
	// Fault decides about every request; nil never fails. It must be set
	// before the first request and be safe for concurrent use.
	Fault func(op Op, key string) Fault
	// Page bounds how much a list answers at once; 1000 if zero.
	Page int

	mu      sync.Mutex
	buckets map[string]*bucket
	count   int // of versions, for their ids
}

type bucket struct {
	Bucket
	objects map[string][]version // by key, the newest first
}

type version struct {
	id     string
	marker bool
	data   []byte
	sum    string // base64 SHA-256, empty if the writer gave none
	mode   string // of its lock, empty if it has none
	until  time.Time
}

// New serves these buckets.
func New(buckets map[string]Bucket) *Server {
	s := &Server{buckets: map[string]*bucket{}}
	for name, b := range buckets {
		s.buckets[name] = &bucket{b, map[string][]version{}}
	}
	return s
}

// refusal is an error of S3.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
type refusal struct {
	status        int
	code, message string
}

func (r refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.code, r.message) }

// answer is a success: headers, and a body that is bytes or encoded as XML.
type answer struct {
	status int
	header http.Header
	body   []byte
	xml    any
}

// request is what an operation works on.
type request struct {
	*http.Request
	bucket string
	key    string
	query  url.Values
	body   []byte
}

// parameters are those that an operation here takes besides the sub-resource that
// names it. x-id is the SDK's name of an operation and means nothing to S3.
var parameters = map[Op][]string{
	GetObject: {"versionId"}, DeleteObject: {"versionId"}, GetObjectRetention: {"versionId"}, PutObjectRetention: {"versionId"},
	ListObjectsV2:      {"prefix", "continuation-token", "max-keys", "start-after", "delimiter", "encoding-type"},
	ListObjectVersions: {"prefix", "key-marker", "version-id-marker", "max-keys", "delimiter", "encoding-type"},
}

// operation finds out what is asked, by method and sub-resource. It is empty for
// one that is not served here: a GET of an object's tags, or a PUT that copies,
// is not taken for the plain one.
func operation(r request) Op {
	table := []struct {
		op              Op
		method, present string
		object          bool
	}{
		{GetObjectRetention, http.MethodGet, "retention", true},
		{PutObjectRetention, http.MethodPut, "retention", true},
		{GetObject, http.MethodGet, "", true},
		{PutObject, http.MethodPut, "", true},
		{DeleteObject, http.MethodDelete, "", true},
		{GetBucketVersioning, http.MethodGet, "versioning", false},
		{GetObjectLockConfiguration, http.MethodGet, "object-lock", false},
		{ListObjectVersions, http.MethodGet, "versions", false},
		{ListObjectsV2, http.MethodGet, "list-type", false},
	}
	for _, row := range table {
		if r.Method == row.method && row.object == (r.key != "") && (row.present == "" || r.query.Has(row.present)) {
			return servable(r, row.op, row.present)
		}
	}
	return ""
}

func servable(r request, op Op, present string) Op {
	for name := range r.query {
		if name != present && name != "x-id" && !slices.Contains(parameters[op], name) {
			return ""
		}
	}
	if r.Header.Get("x-amz-copy-source") != "" {
		return ""
	}
	return op
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r, err := read(hr)
	if err != nil {
		respond(w, answer{}, err)
		return
	}
	op := operation(r)
	var fault Fault
	if s.Fault != nil {
		fault = s.Fault(op, r.key)
	}
	spoilt := fault.Status != 0 || fault.Lost || fault.Hangs
	var out answer
	if !spoilt || fault.Applied {
		out, err = s.do(op, r)
	}
	switch {
	case fault.Hangs:
		<-hr.Context().Done()
	case fault.Lost:
		panic(http.ErrAbortHandler) // net/http closes the connection
	case fault.Status != 0:
		respond(w, answer{}, refusal{fault.Status, fault.Code, "by order of the test"})
	default:
		respond(w, out, err)
	}
}

func (s *Server) do(op Op, r request) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[r.bucket]
	if b == nil {
		return answer{}, refusal{404, "NoSuchBucket", "The specified bucket does not exist"}
	}
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
	if want := r.Header.Get("x-amz-expected-bucket-owner"); want != "" && want != b.Owner {
		return answer{}, refusal{403, "AccessDenied", "Access Denied"}
	}
	ops := map[Op]func(*bucket, request) (answer, error){
		PutObject: s.putObject, GetObject: s.getObject, DeleteObject: s.deleteObject,
		PutObjectRetention: s.putRetention, GetObjectRetention: s.getRetention,
		ListObjectsV2: s.listObjects, ListObjectVersions: s.listVersions,
		GetBucketVersioning: s.getVersioning, GetObjectLockConfiguration: s.getLock,
	}
	if ops[op] == nil { // what S3 says of what an endpoint does not offer
		return answer{}, refusal{501, "NotImplemented", "A header or query you provided implies functionality that is not implemented"}
	}
	return ops[op](b, r)
}

func respond(w http.ResponseWriter, a answer, err error) {
	w.Header().Set("x-amz-request-id", "SIMULATED0000000")
	if err != nil {
		out, ok := err.(refusal)
		if !ok {
			out = refusal{500, "InternalError", err.Error()}
		}
		a = answer{status: out.status, xml: struct {
			XMLName       xml.Name `xml:"Error"`
			Code, Message string
		}{Code: out.code, Message: out.message}}
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	body := a.body
	if a.xml != nil {
		w.Header().Set("Content-Type", "application/xml")
		encoded, err := xml.Marshal(a.xml)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		body = append([]byte(xml.Header), encoded...)
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // a caller that went away has no use for the rest
}

// Overwrite adds a version as somebody with other rights would.
func (s *Server) Overwrite(bucket, key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(s.buckets[bucket], key, version{data: slices.Clone(data)})
}

// Hide adds a delete marker as somebody with other rights would.
func (s *Server) Hide(bucket, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(s.buckets[bucket], key, version{marker: true})
}

// add puts a version before all others and returns its id.
func (s *Server) add(b *bucket, key string, v version) string {
	s.count++
	v.id = fmt.Sprintf("version-%d", s.count)
	if !b.Versioned {
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/versioning-workflows.html
		v.id = "null"
		if v.marker {
			delete(b.objects, key)
			return ""
		}
		b.objects[key] = []version{v}
		return v.id
	}
	b.objects[key] = append([]version{v}, b.objects[key]...)
	return v.id
}

func (s *Server) page() int {
	if s.Page > 0 {
		return s.Page
	}
	return 1000
}

// below are the sorted keys under a prefix.
func (b *bucket) below(prefix string) []string {
	var keys []string
	for key := range b.objects {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
