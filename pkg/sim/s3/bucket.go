package sims3

import (
	"encoding/xml"
	"slices"
	"strings"
	"time"
)

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// getVersioning follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html
// A bucket that never had versions answers no status at all.
func (s *Server) getVersioning(b *bucket, _ request) (answer, error) {
	out := struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		Xmlns   string   `xml:"xmlns,attr"`
		Status  string   `xml:",omitempty"`
	}{Xmlns: namespace}
	if b.Versioned {
		out.Status = "Enabled"
	}
	return answer{xml: out}, nil
}

type defaultRetention struct {
	Mode string
	Days int
}

type lockRule struct{ DefaultRetention defaultRetention }

// getLock follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html
func (s *Server) getLock(b *bucket, _ request) (answer, error) {
	if !b.Locked {
		return answer{}, refusal{404, "ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket"}
	}
	out := struct {
		XMLName           xml.Name `xml:"ObjectLockConfiguration"`
		Xmlns             string   `xml:"xmlns,attr"`
		ObjectLockEnabled string
		Rule              *lockRule
	}{Xmlns: namespace, ObjectLockEnabled: "Enabled"}
	if b.DefaultDays > 0 {
		out.Rule = &lockRule{defaultRetention{compliance, b.DefaultDays}}
	}
	return answer{xml: out}, nil
}

type content struct {
	Key          string
	LastModified time.Time
	Size         int
}

// listObjects follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
// It lists current versions; what a delete marker hides is not among them.
func (s *Server) listObjects(b *bucket, r request) (answer, error) {
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Xmlns                 string   `xml:"xmlns,attr"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []content
	}{Xmlns: namespace}
	for _, key := range b.below(r.query.Get("prefix")) {
		current := b.objects[key]
		if len(current) == 0 || current[0].marker || key <= r.query.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == s.page() {
			out.IsTruncated, out.NextContinuationToken = true, out.Contents[len(out.Contents)-1].Key
			break
		}
		out.Contents = append(out.Contents, content{Key: key, Size: len(current[0].data)})
	}
	return answer{xml: out}, nil
}

type entry struct {
	Key, VersionId string
	IsLatest       bool
	LastModified   time.Time
}

type commonPrefix struct{ Prefix string }

type versionsResult struct {
	XMLName             xml.Name `xml:"ListVersionsResult"`
	Xmlns               string   `xml:"xmlns,attr"`
	IsTruncated         bool
	NextKeyMarker       string `xml:",omitempty"`
	NextVersionIdMarker string `xml:",omitempty"`
	Version             []entry
	DeleteMarker        []entry
	CommonPrefixes      []commonPrefix
}

// listVersions follows https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
// Keys ascend; the versions of one key come from the newest to the oldest. A
// page may end between two of them: the markers name the last one of the page.
func (s *Server) listVersions(b *bucket, r request) (answer, error) {
	out := versionsResult{Xmlns: namespace}
	prefix, delimiter := r.query.Get("prefix"), r.query.Get("delimiter")
	afterKey, afterID := r.query.Get("key-marker"), r.query.Get("version-id-marker")
	listed := 0
	for _, key := range b.below(prefix) {
		if group, folded := fold(key, prefix, delimiter); folded {
			if !slices.Contains(out.CommonPrefixes, commonPrefix{group}) && group > afterKey {
				out.CommonPrefixes = append(out.CommonPrefixes, commonPrefix{group})
			}
			continue
		}
		passed := key > afterKey
		for i, v := range b.objects[key] {
			if !passed {
				passed = key == afterKey && v.id == afterID
				continue
			}
			if listed == s.page() {
				out.IsTruncated = true
				return answer{xml: out}, nil
			}
			listed++
			out.NextKeyMarker, out.NextVersionIdMarker = key, v.id
			e := entry{Key: key, VersionId: v.id, IsLatest: i == 0}
			if v.marker {
				out.DeleteMarker = append(out.DeleteMarker, e)
			} else {
				out.Version = append(out.Version, e)
			}
		}
	}
	out.NextKeyMarker, out.NextVersionIdMarker = "", ""
	return answer{xml: out}, nil
}

// fold is the group that a delimiter puts a key into.
func fold(key, prefix, delimiter string) (string, bool) {
	if delimiter == "" {
		return "", false
	}
	before, _, found := strings.Cut(key[len(prefix):], delimiter)
	return prefix + before + delimiter, found
}
