// Package s3store keeps the objects of a ledger in Amazon S3, write-once under
// Object Lock in COMPLIANCE mode: nobody can change or remove a version before
// its time, the account's root user included.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
//
// The derived view is in another bucket that is not locked: it is rewritten
// with every record, and locking what is rewritten costs a hundred times what
// the records need.
package s3store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
)

var (
	_ ledger.Store    = (*Store)(nil)
	_ ledger.Extender = (*Store)(nil)
)

// The bounds of one call. The SDK alone would wait for an answer for ever.
const (
	defaultCallTimeout = 30 * time.Second
	defaultMaxBackoff  = 3 * time.Second
	attempts           = 4
)

// Options say where the objects are.
type Options struct {
	// Bucket has Object Lock; what is written there is below Prefix, which has
	// no slash at either end and may be empty.
	Bucket, Prefix string
	// ViewBucket has no lock and holds the view. Without one there is no view:
	// nothing is found there and nothing can be published.
	ViewBucket, ViewPrefix string
	// Owner is the account that owns both buckets. It goes with every call, so
	// that S3 refuses when a bucket was lost and taken by somebody else. Empty
	// asks for nothing.
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
	Owner string
	// PathStyle names the bucket in the path, as servers other than AWS want it.
	PathStyle bool
	// SlackDays go beyond what must be kept; see [ledger.RetainUntil].
	SlackDays int
	// KeepUntil, if set, is asked instead until when the object of this name that
	// is written now must stay. It is for test/awslive, whose bucket is to be thrown away; the daemon
	// never sets it, for what it writes is evidence.
	KeepUntil func(name string, at time.Time) time.Time
	// CallTimeout bounds one call with its retries, 30 s if zero; MaxBackoff
	// the wait between two of them, 3 s if zero.
	CallTimeout, MaxBackoff time.Duration
	// Now is the clock, that of the system if nil.
	Now func() time.Time
}

// Store is a [ledger.Store] and [ledger.Extender]. It is safe for concurrent
// use, by several processes too.
//
// The oldest version of an object is the object: later versions and delete
// markers can be added to a locked object and change nothing here. They are
// for a verifier to report.
type Store struct {
	Options
	client *s3.Client

	mu       sync.Mutex
	listings map[string]*listing // by folderOf
}

// New makes a store. Nothing is asked of S3 before the first call; whether the
// buckets are fit is [Store.Check]'s to say.
func New(cfg aws.Config, o Options) *Store {
	o.CallTimeout = cmp.Or(o.CallTimeout, defaultCallTimeout)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, defaultMaxBackoff)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.KeepUntil == nil {
		o.KeepUntil = func(name string, at time.Time) time.Time { return ledger.RetainObject(name, at, o.SlackDays) }
	}
	client := s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.UsePathStyle = o.PathStyle
		so.DisableLogOutputChecksumValidationSkipped = true
		so.Retryer = retryer(o.MaxBackoff)
	})
	return &Store{Options: o, client: client, listings: map[string]*listing{}}
}

// retryer also repeats what S3 asks to repeat when two conditional requests
// meet, which the SDK passes on.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html#conditional-error-response
func retryer(maxBackoff time.Duration) aws.Retryer {
	standard := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff, o.RateLimiter = attempts, maxBackoff, ratelimit.None
	})
	return retry.AddWithErrorCodes(standard, "ConditionalRequestConflict", "OperationAborted")
}

// place is where an object is.
func (s *Store) place(name string) (bucket, key *string) {
	if strings.HasPrefix(name, evidence.ViewFolder) {
		return aws.String(s.ViewBucket), aws.String(join(s.ViewPrefix, name))
	}
	return aws.String(s.Bucket), aws.String(join(s.Prefix, name))
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "/" + name
}

func (s *Store) owner() *string {
	if s.Owner == "" {
		return nil
	}
	return &s.Owner
}

// bounded runs one call with a deadline. A caller that gave up is told its own
// cause.
func (s *Store) bounded(ctx context.Context, call func(context.Context) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	inner, cancel := context.WithTimeout(ctx, s.CallTimeout)
	defer cancel()
	err := call(inner)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case inner.Err() != nil:
		return fmt.Errorf("no answer within %s: %w", s.CallTimeout, err)
	}
	return err
}

// Create implements [ledger.Store]. An object counts as created only when its
// version was seen to be the oldest of its name and locked as it was asked:
// If-None-Match looks past a delete marker, so S3 would let a hidden object be
// created again, and a bucket that forgets the lock keeps nothing.
func (s *Store) Create(ctx context.Context, name string, data []byte) error {
	if err := ledger.CheckName(name, false); err != nil {
		return err
	}
	until := s.KeepUntil(name, s.Now())
	put := s.put(name, data)
	put.IfNoneMatch = aws.String("*")
	put.ObjectLockMode, put.ObjectLockRetainUntilDate = types.ObjectLockModeCompliance, &until
	var version string
	err := s.bounded(ctx, func(ctx context.Context) error {
		out, err := s.client.PutObject(ctx, put)
		if err == nil {
			version = aws.ToString(out.VersionId)
		}
		return err
	})
	switch {
	case code(err) == "PreconditionFailed":
		// By the code and not by the status: another proxy's 412 says nothing.
		return s.exists(ctx, name, until)
	case err != nil:
		return s.explain("create", name, err)
	case version == "" || version == "null":
		return fmt.Errorf("create %s: bucket %s keeps no versions: %s", name, s.Bucket, mendVersioning(s.Bucket))
	}
	return s.confirm(ctx, name, version, until)
}

// put is a request with the checksum that S3 wants with a lock and stores with
// the object.
func (s *Store) put(name string, data []byte) *s3.PutObjectInput {
	bucket, key := s.place(name)
	sum := sha256.Sum256(data)
	return &s3.PutObjectInput{
		Bucket: bucket, Key: key, Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
		ExpectedBucketOwner: s.owner(),
	}
}

// confirm looks at what was just created, from both sides at once.
func (s *Store) confirm(ctx context.Context, name, version string, until time.Time) error {
	var past history
	group, asked := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		past, err = s.history(asked, name)
		return err
	})
	group.Go(func() error {
		got, err := s.lockOf(asked, name, version)
		if err != nil {
			return err
		}
		return got.holds(s.Bucket, name, version, until)
	})
	if err := group.Wait(); err != nil {
		return because("create", name, err)
	}
	switch oldest := past.oldest(); oldest {
	case version:
		return nil
	case "":
		return fmt.Errorf("create %s: the version that was just written is not listed", name)
	default:
		return s.exists(ctx, name, until)
	}
}

// exists says [ledger.ErrExists], once the object that exists is as durable as
// one that was just created.
func (s *Store) exists(ctx context.Context, name string, until time.Time) error {
	past, err := s.history(ctx, name)
	switch {
	case err != nil:
		return because("create", name, err)
	case past.oldest() == "":
		return fmt.Errorf("create %s: S3 says that the object exists and shows no version of it: try again", name)
	}
	if err := s.lengthen(ctx, name, past.oldest(), until); err != nil {
		return because("create", name, err)
	}
	return fmt.Errorf("create %s: %w", name, ledger.ErrExists)
}

// Publish implements [ledger.Store].
func (s *Store) Publish(ctx context.Context, name string, data []byte) error {
	if err := s.derived(name); err != nil {
		return err
	}
	err := s.bounded(ctx, func(ctx context.Context) error {
		_, err := s.client.PutObject(ctx, s.put(name, data))
		return err
	})
	return s.explain("publish", name, err)
}

// Unpublish implements [ledger.Store].
func (s *Store) Unpublish(ctx context.Context, name string) error {
	if err := s.derived(name); err != nil {
		return err
	}
	bucket, key := s.place(name)
	err := s.bounded(ctx, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key, ExpectedBucketOwner: s.owner()})
		return err
	})
	return s.explain("remove", name, err)
}

func (s *Store) derived(name string) error {
	if err := ledger.CheckName(name, true); err != nil {
		return err
	}
	if s.ViewBucket == "" {
		return errors.New("this ledger was opened without its view's bucket")
	}
	return nil
}
