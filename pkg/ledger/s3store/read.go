package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
)

// history is what a bucket holds under one name.
type history struct {
	versions []string // with data, the newest first, as S3 lists them
	markers  int      // delete markers
}

// oldest is the version that is the object, empty if there is none.
func (h history) oldest() string {
	if len(h.versions) == 0 {
		return ""
	}
	return h.versions[len(h.versions)-1]
}

// histories lists everything under a prefix outside the view, and every
// version of it. only stops after the object that is called like the prefix.
// S3 lists the versions of one key from the newest to the oldest.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
func (s *Store) histories(ctx context.Context, prefix string, only bool) (map[string]history, error) {
	found := map[string]history{}
	bucket, key := s.place(prefix)
	in := &s3.ListObjectVersionsInput{Bucket: bucket, Prefix: key, ExpectedBucketOwner: s.owner()}
	err := s.pages(ctx, in, func(out *s3.ListObjectVersionsOutput) (more bool) {
		s.collect(found, out.Versions, out.DeleteMarkers)
		return !only || aws.ToString(out.NextKeyMarker) <= *key
	})
	if err != nil {
		return nil, s.explain("list the versions of", prefix, err)
	}
	return found, nil
}

// pages lists page by page for as long as more is wanted.
func (s *Store) pages(ctx context.Context, in *s3.ListObjectVersionsInput, page func(*s3.ListObjectVersionsOutput) (more bool)) error {
	for {
		var out *s3.ListObjectVersionsOutput
		err := s.bounded(ctx, func(ctx context.Context) (err error) {
			out, err = s.client.ListObjectVersions(ctx, in)
			return err
		})
		switch {
		case err != nil:
			return err
		case !page(out) || !aws.ToBool(out.IsTruncated):
			return nil
		case aws.ToString(out.NextKeyMarker) == "":
			return errors.New("the list goes on and does not say where")
		}
		in.KeyMarker, in.VersionIdMarker = out.NextKeyMarker, out.NextVersionIdMarker
	}
}

func (s *Store) collect(found map[string]history, versions []types.ObjectVersion, markers []types.DeleteMarkerEntry) {
	for _, v := range versions {
		name := s.name(v.Key)
		h := found[name]
		h.versions = append(h.versions, aws.ToString(v.VersionId))
		found[name] = h
	}
	for _, m := range markers {
		name := s.name(m.Key)
		h := found[name]
		h.markers++
		found[name] = h
	}
}

func (s *Store) name(key *string) string {
	return strings.TrimPrefix(aws.ToString(key), join(s.Prefix, ""))
}

func (s *Store) history(ctx context.Context, name string) (history, error) {
	found, err := s.histories(ctx, name, true)
	return found[name], err
}

// versionOf is the oldest version of an object.
func (s *Store) versionOf(ctx context.Context, name string) (string, error) {
	past, err := s.history(ctx, name)
	switch {
	case err != nil:
		return "", err
	case past.oldest() != "":
		return past.oldest(), nil
	case past.markers > 0:
		// Whoever may delete must not be able to say that nothing is there.
		return "", fmt.Errorf("%s has a delete marker and no version in bucket %s: somebody deletes there; remove the marker and the right to do so", name, s.Bucket)
	}
	return "", ledger.ErrNotFound
}

// Read implements [ledger.Store]. The object is its oldest version.
func (s *Store) Read(ctx context.Context, name string) ([]byte, error) {
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case !strings.HasPrefix(name, evidence.ViewFolder):
		return s.readOldest(ctx, name)
	case s.ViewBucket == "":
		return nil, fmt.Errorf("read %s: %w", name, ledger.ErrNotFound)
	}
	return s.get(ctx, name, "")
}

func (s *Store) readOldest(ctx context.Context, name string) ([]byte, error) {
	version, coming := s.known(ctx, name)
	if coming != nil {
		select {
		case got := <-coming:
			if got.err == nil {
				return got.data, nil
			}
			// The caller that it was read ahead for may be gone.
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if version == "" {
		var err error
		if version, err = s.versionOf(ctx, name); err != nil {
			return nil, because("read", name, err)
		}
	}
	return s.get(ctx, name, version)
}

// get reads a version of an object, or the current one of the view.
func (s *Store) get(ctx context.Context, name, version string) (data []byte, err error) {
	bucket, key := s.place(name)
	in := &s3.GetObjectInput{Bucket: bucket, Key: key, ExpectedBucketOwner: s.owner(), ChecksumMode: types.ChecksumModeEnabled}
	if version != "" {
		in.VersionId = &version
	}
	err = s.bounded(ctx, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, in)
		if err != nil {
			return err
		}
		data, err = io.ReadAll(out.Body)
		return errors.Join(err, out.Body.Close())
	})
	if code(err) == "NoSuchKey" && version == "" {
		err = ledger.ErrNotFound
	}
	if err != nil {
		return nil, s.explain("read", name, err)
	}
	return data, nil
}

// List implements [ledger.Store]. Outside the view it lists versions, so that
// an object that a delete marker hides is still there.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	names := []string{}
	if !strings.HasPrefix(prefix, evidence.ViewFolder) {
		found, err := s.histories(ctx, prefix, false)
		if err != nil {
			return nil, err
		}
		for name, h := range found {
			// What lies under the view's names here is none of ours.
			if h.oldest() != "" && !strings.HasPrefix(name, evidence.ViewFolder) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if prefix != "" && prefix == folderOf(prefix) {
			s.keep(prefix, found, slices.Clone(names))
		}
	}
	if strings.HasPrefix(prefix, evidence.ViewFolder) || strings.HasPrefix(evidence.ViewFolder, prefix) {
		view, err := s.listView(ctx, prefix)
		if err != nil {
			return nil, err
		}
		names = append(names, view...)
	}
	slices.Sort(names)
	return names, nil
}

func (s *Store) listView(ctx context.Context, prefix string) ([]string, error) {
	if s.ViewBucket == "" {
		return nil, nil
	}
	if !strings.HasPrefix(prefix, evidence.ViewFolder) {
		prefix = evidence.ViewFolder
	}
	var names []string
	bucket, key := s.place(prefix)
	in := &s3.ListObjectsV2Input{Bucket: bucket, Prefix: key, ExpectedBucketOwner: s.owner()}
	for {
		var out *s3.ListObjectsV2Output
		err := s.bounded(ctx, func(ctx context.Context) (err error) {
			out, err = s.client.ListObjectsV2(ctx, in)
			return err
		})
		if err != nil {
			return nil, s.explain("list", prefix, err)
		}
		for _, o := range out.Contents {
			names = append(names, strings.TrimPrefix(aws.ToString(o.Key), join(s.ViewPrefix, "")))
		}
		if !aws.ToBool(out.IsTruncated) {
			return names, nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}
