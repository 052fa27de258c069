package awslive

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
)

// writers race for one name, as replicas that all think they lead would.
const writers = 24

// bench is a folder of the evidence bucket that one run writes to.
type bench struct {
	*suite
	store  *s3store.Store
	folder string
}

// changeS3 asks what only writing shows. An error is one that keeps the rest
// from being asked.
func (l *suite) changeS3(ctx context.Context) error {
	folder := "live-" + time.Now().UTC().Format("20060102T150405") + "-" + rand.Text()[:6]
	b := bench{l, l.store(folder), folder}
	if !b.once(ctx) {
		return fmt.Errorf("nothing can be written below s3://%s/%s", l.S3.Bucket, b.key(""))
	}
	b.race(ctx)
	original, err := b.versions(ctx, "once")
	if err != nil {
		return err
	}
	if len(original) != 1 {
		return fmt.Errorf("%s has %d versions after one was made", b.key("once"), len(original))
	}
	b.locked(ctx, aws.ToString(original[0].VersionId))
	b.hidden(ctx, aws.ToString(original[0].VersionId))
	b.conditions(ctx)
	b.view(ctx)
	return nil
}

func (b bench) key(name string) string { return b.S3.Prefix + "/" + b.folder + "/" + name }

func (b bench) wrote(name string) {
	b.made(fmt.Sprintf("s3://%s/%s, locked until about %s", b.S3.Bucket, b.key(name), time.Now().Add(retention).UTC().Format(time.RFC3339)),
		"not possible before; afterwards aws s3api list-object-versions --bucket %s --prefix %s and aws s3api delete-object --version-id for each", b.S3.Bucket, b.key(name))
}

// once makes an object, which the store itself reads back: its lock, and that
// its version is listed right after the put.
func (b bench) once(ctx context.Context) bool {
	began := time.Now()
	err := b.store.Create(ctx, "once", []byte("first"))
	if !b.learn(rowLock, "create", err, "the version was listed and its lock read back right after the put") {
		return false
	}
	b.measure(rowS3Time, "an object put, its lock read, its versions listed", time.Since(began))
	b.wrote("once")
	err = b.store.Create(ctx, "once", []byte("second"))
	b.holds(rowLock, "create twice", errors.Is(err, ledger.ErrExists), "the second is told: %v", err)
	return true
}

// race: exactly one of many writers wins, and what is read is its object.
func (b bench) race(ctx context.Context) {
	errs := make([]error, writers)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range writers {
		wg.Go(func() { errs[i] = b.store.Create(ctx, "race", fmt.Appendf(nil, "writer %d", i)) })
	}
	wg.Wait()
	b.measure(rowS3Time, fmt.Sprintf("%d writers of one name", writers), time.Since(began))
	b.wrote("race")
	winner, won, lost := 0, 0, 0
	var other error
	for i, err := range errs {
		switch {
		case err == nil:
			winner, won = i, won+1
		case errors.Is(err, ledger.ErrExists):
			lost++
		default:
			other = err
		}
	}
	data, err := b.store.Read(ctx, "race")
	kept := err == nil && bytes.Equal(data, fmt.Appendf(nil, "writer %d", winner))
	b.holds(rowLock, "race", won == 1 && lost == writers-1 && kept, "%d won, %d were told that it exists, the winner's object is read: %t, another error: %v", won, lost, kept, other)
}

// locked tries what COMPLIANCE forbids with a role that IAM allows it, so that
// the refusal is the lock's.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html#object-lock-retention-modes
func (b bench) locked(ctx context.Context, version string) {
	_, err := b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.S3.Bucket, Key: aws.String(b.key("once")), VersionId: &version, ExpectedBucketOwner: &b.Account})
	b.denied(rowLock, "delete a locked version", err)
	_, err = b.s3.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
		Bucket: &b.S3.Bucket, Key: aws.String(b.key("once")), VersionId: &version, ExpectedBucketOwner: &b.Account,
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: aws.Time(time.Now().Add(retention / 2))},
	})
	b.denied(rowLock, "shorten a lock", err)
	err = b.store.Extend(ctx, []string{"once"}, time.Now().Add(retention+time.Minute).Truncate(time.Second))
	b.learn(rowLock, "lengthen a lock", err, "by a minute")
}

// denied wants S3's refusal; its text tells the lock's from IAM's.
func (b bench) denied(row, question string, err error) {
	switch {
	case err == nil:
		b.answer(row, question, No, "it was allowed")
	case code(err) == "AccessDenied":
		b.answer(row, question, Yes, "it is refused: %v", err)
	default:
		b.answer(row, question, Unknown, "%v", err)
	}
}

// hidden puts a delete marker over an object. The store must not lose sight of
// it; S3 documents that a conditional put then passes, and that versions are
// listed from the newest, on which the store relies.
func (b bench) hidden(ctx context.Context, original string) {
	out, err := b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.S3.Bucket, Key: aws.String(b.key("once")), ExpectedBucketOwner: &b.Account})
	if !b.learn(rowLock, "delete marker over a locked object", err, "S3 takes one") {
		return
	}
	b.made(fmt.Sprintf("a delete marker over s3://%s/%s", b.S3.Bucket, b.key("once")),
		"aws s3api delete-object --bucket %s --key %s --version-id %s", b.S3.Bucket, b.key("once"), aws.ToString(out.VersionId))
	data, err := b.store.Read(ctx, "once")
	b.holds(rowLock, "read below a delete marker", err == nil && string(data) == "first", "%q, %v", data, err)
	names, err := b.store.List(ctx, "")
	b.holds(rowLock, "list below a delete marker", err == nil && slices.Contains(names, "once"), "%q, %v", names, err)
	err = b.store.Create(ctx, "once", []byte("over the marker"))
	b.holds(rowLock, "create over a delete marker", errors.Is(err, ledger.ErrExists), "the store says: %v", err)
	all, err := b.versions(ctx, "once")
	if !b.learn(rowLock, "versions", err, "%d are listed", len(all)) {
		return
	}
	b.holds(rowLock, "If-None-Match over a delete marker", len(all) == 2, "%d versions: with 2 S3 lets the put pass, with 1 it refuses", len(all))
	ordered := len(all) > 0 && aws.ToString(all[len(all)-1].VersionId) == original &&
		slices.IsSortedFunc(all, func(x, y types.ObjectVersion) int {
			return aws.ToTime(y.LastModified).Compare(aws.ToTime(x.LastModified))
		})
	b.holds(rowLock, "versions from the newest", ordered, "the first that was written is listed last, times descend: %t", ordered)
}

// versions lists the versions of one object as S3 does. There are so few that
// they are one page.
func (b bench) versions(ctx context.Context, name string) ([]types.ObjectVersion, error) {
	out, err := b.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &b.S3.Bucket, Prefix: aws.String(b.key(name)), ExpectedBucketOwner: &b.Account})
	if err != nil {
		return nil, fmt.Errorf("list the versions of %s: %w", b.key(name), err)
	}
	return out.Versions, nil
}

// conditions tries the two puts that the conditions of the policies forbid.
func (b bench) conditions(ctx context.Context) {
	body := []byte("x")
	sum := sha256.Sum256(body)
	put := func(name string) *s3.PutObjectInput {
		return &s3.PutObjectInput{
			Bucket: &b.S3.Bucket, Key: aws.String(b.key(name)), Body: bytes.NewReader(body), ExpectedBucketOwner: &b.Account,
			ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
		}
	}
	overwrite := put("overwrite")
	overwrite.ObjectLockMode, overwrite.ObjectLockRetainUntilDate = types.ObjectLockModeCompliance, aws.Time(time.Now().Add(retention).Truncate(time.Second))
	unlocked := put("unlocked")
	unlocked.IfNoneMatch = aws.String("*")
	for _, try := range []struct {
		question string
		in       *s3.PutObjectInput
	}{{"put without If-None-Match", overwrite}, {"put without a lock", unlocked}} {
		_, err := b.s3.PutObject(ctx, try.in)
		b.denied(rowS3Policy, try.question, err)
		if err == nil {
			b.made(fmt.Sprintf("s3://%s/%s, which should have been refused", b.S3.Bucket, aws.ToString(try.in.Key)),
				"aws s3api list-object-versions and aws s3api delete-object --version-id, if need be after a day; run the suite under configs/iam-policy-live.json")
		}
	}
}

// view writes, reads and removes in the bucket that has no lock.
func (b bench) view(ctx context.Context) {
	began := time.Now()
	err := b.store.Publish(ctx, evidence.ViewCheckpoint, []byte("view"))
	if !b.learn(rowS3Policy, "write the view", err, "one object in %s", b.S3.ViewBucket) {
		return
	}
	b.measure(rowS3Time, "an object of the view put", time.Since(began))
	data, err := b.store.Read(ctx, evidence.ViewCheckpoint)
	b.holds(rowS3Policy, "read the view", err == nil && string(data) == "view", "%q, %v", data, err)
	err = b.store.Unpublish(ctx, evidence.ViewCheckpoint)
	if !b.learn(rowS3Policy, "remove from the view", err, "it is gone") {
		b.made(fmt.Sprintf("s3://%s/%s", b.S3.ViewBucket, b.key(evidence.ViewCheckpoint)), "aws s3 rm s3://%s/%s", b.S3.ViewBucket, b.key(evidence.ViewCheckpoint))
	}
}
