package s3store

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func mendVersioning(bucket string) string {
	return fmt.Sprintf("run aws s3api put-bucket-versioning --bucket %s --versioning-configuration Status=Enabled", bucket)
}

// mendLock: Object Lock can be turned on for a bucket that has versions.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-configure.html
func mendLock(bucket string) string {
	return fmt.Sprintf("run aws s3api put-object-lock-configuration --bucket %s --object-lock-configuration ObjectLockEnabled=Enabled", bucket)
}

// Check asks whether the buckets are fit, before anything is written to them.
// What cannot be learned counts as unfit. All problems are returned, joined.
func (s *Store) Check(ctx context.Context) error {
	return errors.Join(s.checkVersioning(ctx), s.checkLock(ctx), s.checkView(ctx))
}

// checkVersioning uses https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html
func (s *Store) checkVersioning(ctx context.Context) error {
	var status types.BucketVersioningStatus
	err := s.bounded(ctx, func(ctx context.Context) error {
		out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.Bucket, ExpectedBucketOwner: s.owner()})
		if err == nil {
			status = out.Status
		}
		return err
	})
	switch {
	case err != nil:
		return s.explain("ask for the versioning of bucket", s.Bucket, err)
	case status != types.BucketVersioningStatusEnabled:
		return fmt.Errorf("bucket %s does not keep versions, so nothing in it can be locked: %s", s.Bucket, mendVersioning(s.Bucket))
	}
	return nil
}

// lockConfiguration is nil for a bucket without Object Lock.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html
func (s *Store) lockConfiguration(ctx context.Context, bucket string) (c *types.ObjectLockConfiguration, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &bucket, ExpectedBucketOwner: s.owner()})
		if err == nil {
			c = out.ObjectLockConfiguration
		}
		return err
	})
	if code(err) == "ObjectLockConfigurationNotFoundError" {
		return nil, nil
	}
	return c, err
}

func (s *Store) checkLock(ctx context.Context) error {
	c, err := s.lockConfiguration(ctx, s.Bucket)
	switch {
	case err != nil:
		return s.explain("ask for the Object Lock of bucket", s.Bucket, err)
	case c == nil || c.ObjectLockEnabled != types.ObjectLockEnabledEnabled:
		return fmt.Errorf("bucket %s has no Object Lock, so the log could be changed: %s", s.Bucket, mendLock(s.Bucket))
	}
	return nil
}

// checkView refuses a view that would be locked by default: it is rewritten
// with every record, and every version of it would stay and be paid for.
func (s *Store) checkView(ctx context.Context) error {
	if s.ViewBucket == "" {
		return nil
	}
	c, err := s.lockConfiguration(ctx, s.ViewBucket)
	switch {
	case err != nil:
		return s.explainAt(s.ViewBucket, "ask for the Object Lock of bucket", s.ViewBucket, err)
	case c != nil && c.Rule != nil && c.Rule.DefaultRetention != nil:
		return fmt.Errorf("bucket %s locks every object by default, and the view in it is rewritten with every record: give the view a bucket without Object Lock", s.ViewBucket)
	}
	return nil
}
