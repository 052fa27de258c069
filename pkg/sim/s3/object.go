package sims3

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const compliance = "COMPLIANCE"

var errMethod = refusal{405, "MethodNotAllowed", "The specified method is not allowed against this resource."}

func read(r *http.Request) (request, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return request{}, refusal{400, "IncompleteBody", err.Error()}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return request{r, bucket, key, r.URL.Query(), body}, nil
}

// putObject follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
func (s *Server) putObject(b *bucket, r request) (answer, error) {
	v := version{data: r.body, sum: r.Header.Get("x-amz-checksum-sha256")}
	sum := sha256.Sum256(r.body)
	if v.sum != "" && v.sum != base64.StdEncoding.EncodeToString(sum[:]) {
		return answer{}, refusal{400, "BadDigest", "The SHA256 you specified did not match the calculated checksum."}
	}
	if err := b.lock(&v, r); err != nil {
		return answer{}, err
	}
	// "If-None-Match: * ... If the object exists, 412 Precondition Failed"; with
	// versions "if there's no current object version with the same name, or if
	// the current object version is a delete marker, the write succeeds".
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
	if all := b.objects[r.key]; r.Header.Get("If-None-Match") == "*" && len(all) > 0 && !all[0].marker {
		return answer{}, refusal{412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"}
	}
	id := s.add(b, r.key, v)
	out := answer{header: http.Header{"Etag": {fmt.Sprintf("%q", fmt.Sprintf("%x", sum[:16]))}}}
	if b.Versioned {
		out.header.Set("x-amz-version-id", id)
	}
	return out, nil
}

// lock reads the lock headers of a put.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html
func (b *bucket) lock(v *version, r request) error {
	mode, date := r.Header.Get("x-amz-object-lock-mode"), r.Header.Get("x-amz-object-lock-retain-until-date")
	switch {
	case mode == "" && date == "" && b.DefaultDays > 0:
		mode, date = compliance, time.Now().UTC().AddDate(0, 0, b.DefaultDays).Format(time.RFC3339)
	case mode == "" && date == "":
		return nil
	case mode == "" || date == "":
		return refusal{400, "InvalidArgument", "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"}
	case !b.Locked:
		return refusal{400, "InvalidRequest", "Bucket is missing Object Lock Configuration"}
	case v.sum == "" && r.Header.Get("Content-MD5") == "":
		// "The Content-MD5 or x-amz-sdk-checksum-algorithm header is required
		// for any request to upload an object with a retention period".
		return refusal{400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"}
	}
	until, err := time.Parse(time.RFC3339, date)
	if err != nil || !until.After(time.Now()) {
		return refusal{400, "InvalidArgument", "The retain until date must be in the future!"}
	}
	if !b.Forgets {
		v.mode, v.until = mode, until
	}
	return nil
}

// find is the version that a request names, the current one without a name.
func (b *bucket) find(r request) (*version, error) {
	all := b.objects[r.key]
	id := r.query.Get("versionId")
	if id == "" {
		if len(all) == 0 || all[0].marker {
			return nil, refusal{404, "NoSuchKey", "The specified key does not exist."}
		}
		return &all[0], nil
	}
	for i := range all {
		if all[i].id == id {
			return &all[i], nil
		}
	}
	return nil, refusal{404, "NoSuchVersion", "The specified version does not exist."}
}

// getObject follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
func (s *Server) getObject(b *bucket, r request) (answer, error) {
	v, err := b.find(r)
	switch {
	case err != nil:
		return answer{}, err
	case v.marker:
		return answer{}, errMethod
	}
	out := answer{body: v.data, header: http.Header{}}
	if b.Versioned {
		out.header.Set("x-amz-version-id", v.id)
	}
	if v.sum != "" && r.Header.Get("x-amz-checksum-mode") == "ENABLED" {
		out.header.Set("x-amz-checksum-sha256", v.sum)
	}
	return out, nil
}

// deleteObject follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html
// Without a version it only adds a delete marker, on a locked object too; a
// version under COMPLIANCE is refused to everybody.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html#object-lock-managing-delete-markers
func (s *Server) deleteObject(b *bucket, r request) (answer, error) {
	id := r.query.Get("versionId")
	if id == "" {
		out := answer{status: http.StatusNoContent}
		if marker := s.add(b, r.key, version{marker: true}); b.Versioned {
			out.header = http.Header{"X-Amz-Delete-Marker": {"true"}, "X-Amz-Version-Id": {marker}}
		}
		return out, nil
	}
	all := b.objects[r.key]
	for i, v := range all {
		switch {
		case v.id != id:
		case v.mode != "" && v.until.After(time.Now()):
			return answer{}, refusal{403, "AccessDenied", "Access Denied because object protected by object lock."}
		default:
			b.objects[r.key] = append(all[:i:i], all[i+1:]...)
			return answer{status: http.StatusNoContent}, nil
		}
	}
	return answer{status: http.StatusNoContent}, nil
}

type retention struct {
	XMLName         xml.Name `xml:"Retention"`
	Mode            string
	RetainUntilDate time.Time
}

// getRetention follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectRetention.html
func (s *Server) getRetention(b *bucket, r request) (answer, error) {
	v, err := b.find(r)
	switch {
	case err != nil:
		return answer{}, err
	case !b.Locked:
		return answer{}, refusal{400, "InvalidRequest", "Bucket is missing Object Lock Configuration"}
	case v.marker:
		return answer{}, errMethod
	case v.mode == "":
		return answer{}, refusal{404, "NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration"}
	}
	return answer{xml: retention{Mode: v.mode, RetainUntilDate: v.until}}, nil
}

// putRetention follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectRetention.html
// In COMPLIANCE mode "its retention mode can't be changed, and its retention
// period can't be shortened".
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html#object-lock-retention-modes
func (s *Server) putRetention(b *bucket, r request) (answer, error) {
	v, err := b.find(r)
	if err != nil {
		return answer{}, err
	}
	var want retention
	switch err := xml.Unmarshal(r.body, &want); {
	case !b.Locked:
		return answer{}, refusal{400, "InvalidRequest", "Bucket is missing Object Lock Configuration"}
	case err != nil || want.Mode == "" || want.RetainUntilDate.IsZero():
		return answer{}, refusal{400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"}
	case v.mode == compliance && (want.Mode != compliance || want.RetainUntilDate.Before(v.until)):
		return answer{}, refusal{403, "AccessDenied", "Access Denied because object protected by object lock."}
	}
	v.mode, v.until = want.Mode, want.RetainUntilDate
	return answer{}, nil
}
