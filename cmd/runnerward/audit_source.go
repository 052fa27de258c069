package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
)

// s3Scheme begins the address of a ledger in a bucket.
const s3Scheme = "s3://"

// source is a ledger to be read.
type source struct {
	files fs.FS
	// objects tells of versions and locks; nil for a folder, which has neither.
	objects evidence.Objects
	notes   []evidence.Note
}

// s3Flags say how a bucket is reached.
type s3Flags struct {
	region      string
	service     hosts.Service
	owner, view string
}

func (f *s3Flags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.region, "region", "", "region of the bucket (default: $AWS_REGION)")
	cmd.Flags().StringVar(&f.service.Endpoint, "endpoint", "", "another S3 endpoint than AWS's own")
	cmd.Flags().StringVar(&f.service.CAFile, "ca-file", "", "PEM file of the authorities that the endpoint's certificate is checked with")
	cmd.Flags().StringVar(&f.owner, "bucket-owner", "", "account that must own the buckets")
	cmd.Flags().StringVar(&f.view, "view", "", "s3://BUCKET/PREFIX of the view, to be checked too")
}

// given names the flags that mean nothing for a folder.
func (f *s3Flags) given() (names []string) {
	for name, value := range map[string]string{
		"--region": f.region, "--endpoint": f.service.Endpoint, "--ca-file": f.service.CAFile,
		"--bucket-owner": f.owner, "--view": f.view,
	} {
		if value != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// open finds the ledger at a path or an address.
func (f *s3Flags) open(ctx context.Context, at string) (source, error) {
	if strings.HasPrefix(at, s3Scheme) {
		return f.bucket(ctx, at)
	}
	if more := f.given(); len(more) > 0 {
		return source{}, fmt.Errorf("%s is a folder, and %s is for s3://BUCKET/PREFIX", at, strings.Join(more, ", "))
	}
	if err := ledgerFolder(at); err != nil {
		return source{}, err
	}
	return source{files: os.DirFS(at), notes: []evidence.Note{{
		Detail: "this is a folder, which has no versions and no locks: whether somebody wrote an object twice, deleted or never locked it shows only in the bucket (--ledger s3://BUCKET/PREFIX)",
	}}}, nil
}

func (f *s3Flags) bucket(ctx context.Context, at string) (source, error) {
	opts := s3store.Options{Owner: f.owner}
	var err error
	if opts.Bucket, opts.Prefix, err = s3Address(at); err != nil {
		return source{}, err
	}
	if f.view != "" {
		if opts.ViewBucket, opts.ViewPrefix, err = s3Address(f.view); err != nil {
			return source{}, fmt.Errorf("--view: %w", err)
		}
	}
	region := cmp.Or(f.region, os.Getenv("AWS_REGION"))
	if region == "" {
		return source{}, errors.New("the bucket's region is not known: give --region")
	}
	reach := hosts.ConfigOptions{Region: region, Service: &f.service}
	if f.service.Endpoint == "" { // AWS, whose roles come through the same proxy
		reach.CAFile = f.service.CAFile
	}
	store, err := openS3(ctx, reach, opts)
	if err != nil {
		return source{}, err
	}
	files := store.FS(ctx)
	out := source{files: files, objects: files}
	if f.view == "" {
		out.notes = append(out.notes, evidence.Note{Detail: "the view was not read: give --view to have it checked too"})
	}
	// Any other place would verify as a ledger that holds nothing.
	is, err := isLedger(files)
	if err == nil && !is {
		err = fmt.Errorf("%s has nothing under %s and no folder of a year: it is not a ledger", at, evidence.SegmentFolder)
	}
	return out, err
}

// s3Address reads s3://BUCKET/PREFIX; the prefix may be missing.
func s3Address(at string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(at, s3Scheme)
	bucket, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if !ok || bucket == "" || prefix != "" && !fs.ValidPath(prefix) {
		return "", "", fmt.Errorf("%q is not s3://BUCKET or s3://BUCKET/PREFIX", at)
	}
	return bucket, prefix, nil
}

// ledgerFolder wants a folder that looks like a ledger: any other would verify
// as one that holds nothing.
func ledgerFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is a file, want the folder of the ledger", path)
	}
	is, err := isLedger(os.DirFS(path))
	if err == nil && !is {
		err = fmt.Errorf("%s has no folder %s and none of a year: it is not a ledger", path, strings.TrimSuffix(evidence.SegmentFolder, "/"))
	}
	return err
}

// isLedger looks for the records of the first year of a log, or of a later one:
// a copy may hold some years only.
func isLedger(files fs.FS) (bool, error) {
	_, err := fs.Stat(files, strings.TrimSuffix(evidence.SegmentFolder, "/"))
	if !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	entries, err := fs.ReadDir(files, ".")
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		_, year := evidence.ParseShard(e.Name())
		return year && e.IsDir()
	}), err
}
