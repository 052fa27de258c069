package s3store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/runnerward/runnerward/pkg/ledger"
)

// ErrNotLocked says that a version is not locked as it was asked. Nothing is
// built on such an object.
var ErrNotLocked = errors.New("the object is not locked as asked")

// compliance is the one mode that nobody can lift: GOVERNANCE yields to a
// permission.
const compliance = string(types.ObjectLockRetentionModeCompliance)

// lock is how a version is kept; zero for one that is not.
type lock struct {
	mode  string
	until time.Time
}

// holds wants the lock to be what was asked for.
func (l lock) holds(bucket, name, version string, until time.Time) error {
	if l.mode == compliance && !l.until.Before(until) {
		return nil
	}
	has := "has no retention"
	if l.mode != "" {
		has = fmt.Sprintf("has %s until %s", l.mode, l.until.Format(time.RFC3339))
	}
	return fmt.Errorf("version %s of %s in bucket %s %s, want COMPLIANCE until %s: %w; lock it by aws s3api put-object-retention "+
		"(--bucket, --key, --version-id, --retention), and see that bucket and role allow the lock headers of a put",
		version, name, bucket, has, until.Format(time.RFC3339), ErrNotLocked)
}

// lockOf asks for the lock of one version. That there is none is an answer;
// that it may not be asked is an error, where HEAD would just leave the
// headers out.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectRetention.html
func (s *Store) lockOf(ctx context.Context, name, version string) (l lock, err error) {
	bucket, key := s.place(name)
	err = s.bounded(ctx, func(ctx context.Context) error {
		out, err := s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{
			Bucket: bucket, Key: key, VersionId: &version, ExpectedBucketOwner: s.owner(),
		})
		if err == nil && out.Retention != nil {
			l = lock{string(out.Retention.Mode), aws.ToTime(out.Retention.RetainUntilDate).UTC()}
		}
		return err
	})
	if code(err) == "NoSuchObjectLockConfiguration" {
		return lock{}, nil
	}
	return l, s.explain("ask for the lock of", name, err)
}

// lengthen makes a version stay at least until this time. COMPLIANCE may be
// lengthened by anybody who may lock, and shortened by nobody.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html#object-lock-managing-retention-extend
func (s *Store) lengthen(ctx context.Context, name, version string, until time.Time) error {
	got, err := s.lockOf(ctx, name, version)
	if err != nil || got.mode == compliance && !got.until.Before(until) {
		return err
	}
	if got.mode != compliance {
		return got.holds(s.Bucket, name, version, until)
	}
	bucket, key := s.place(name)
	err = s.bounded(ctx, func(ctx context.Context) error {
		_, err := s.client.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
			Bucket: bucket, Key: key, VersionId: &version, ExpectedBucketOwner: s.owner(),
			Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: &until},
		})
		return err
	})
	if err != nil {
		return s.explain("lengthen the lock of", name, err)
	}
	if got, err = s.lockOf(ctx, name, version); err != nil {
		return err
	}
	return got.holds(s.Bucket, name, version, until)
}

// Extend implements [ledger.Extender].
func (s *Store) Extend(ctx context.Context, names []string, until time.Time) error {
	var problems []error
	for _, name := range names {
		problems = append(problems, s.extend(ctx, name, until))
	}
	return errors.Join(problems...)
}

func (s *Store) extend(ctx context.Context, name string, until time.Time) error {
	if err := ledger.CheckName(name, false); err != nil {
		return err
	}
	version, err := s.versionOf(ctx, name)
	if err != nil {
		return because("extend", name, err)
	}
	return because("extend", name, s.lengthen(ctx, name, version, until))
}
