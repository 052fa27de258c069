package s3store

import (
	"errors"
	"fmt"

	"github.com/aws/smithy-go"
)

// code is S3's own name of an error, empty for one that is not S3's.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// because adds what was being done.
func because(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

// explain adds what was being done and how to mend what an operator can mend.
// S3's text, with its request id, stays: it holds no secret.
func (s *Store) explain(what, name string, err error) error {
	bucket, _ := s.place(name)
	return s.explainAt(*bucket, what, name, err)
}

// explainAt is explain for a bucket as such, which no name of an object tells.
func (s *Store) explainAt(bucket, what, name string, err error) error {
	if err == nil {
		return nil
	}
	mend := ""
	switch code(err) {
	case "AccessDenied":
		mend = fmt.Sprintf(": the role needs the rights of configs/iam-policy.json on bucket %s, and the bucket must belong to the account in bucketOwner (%q)", bucket, s.Owner)
	case "NoSuchBucket":
		mend = fmt.Sprintf(": there is no bucket %s: correct its name or create it", bucket)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		mend = fmt.Sprintf(": bucket %s is in another region than ledger.s3.region says", bucket)
	case "InvalidRequest", "InvalidBucketState", "ObjectLockConfigurationNotFoundError":
		mend = fmt.Sprintf(": if bucket %s has no Object Lock, %s", bucket, mendLock(bucket))
	}
	return fmt.Errorf("%s %s in S3%s: %w", what, name, mend, err)
}
