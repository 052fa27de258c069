package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/runner"
)

const (
	// keepEvery is how often what is in effect is kept for longer, keepAgain
	// how soon again after a failure. The slack of every lock is at least a week.
	keepEvery = 24 * time.Hour
	keepAgain = time.Hour
)

// openStore opens the place of the log, a folder or a bucket. A bucket that is
// not fit is refused before anything is written to it.
func openStore(ctx context.Context, cfg *config.Config) (store ledger.Store, closeStore func() error, err error) {
	if cfg.Ledger.Dir != "" {
		dir, err := ledger.OpenDir(cfg.Ledger.Dir)
		if err != nil {
			return nil, nil, fmt.Errorf("ledger.dir: %w", err)
		}
		return dir, dir.Close, nil
	}
	at := cfg.Ledger.S3
	s, err := openS3(ctx, hosts.ConfigOptions{
		Region: at.Region, Endpoint: cfg.Hosts.Endpoint, CAFile: cfg.Hosts.CAFile,
		Service: &hosts.Service{Endpoint: at.Endpoint, CAFile: at.CAFile},
	}, s3store.Options{
		Bucket: at.Bucket, Prefix: at.Prefix, ViewBucket: at.ViewBucket, ViewPrefix: at.ViewPrefix,
		Owner: at.BucketOwner, SlackDays: at.SlackDays,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("ledger.s3: %w", err)
	}
	if err := s.Check(ctx); err != nil {
		return nil, nil, fmt.Errorf("ledger.s3: %w", err)
	}
	return s, func() error { return nil }, nil
}

// unanswered says that a call to AWS came to nothing that may pass by itself:
// no whole answer, a server's failure, or being asked to slow down. The status
// decides, and not the error's own word whose fault it is: errors that the
// service's model does not list, as all of these of S3, have none.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
// https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html
func unanswered(err error) bool {
	if _, called := errors.AsType[*smithy.OperationError](err); !called {
		return false
	}
	for _, codes := range []map[string]struct{}{retry.DefaultThrottleErrorCodes, retry.DefaultRetryableErrorCodes} {
		if (retry.RetryableErrorCode{Codes: codes}).IsErrorRetryable(err) == aws.TrueTernary {
			return true // of status 400 or so
		}
	}
	status := 0
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = response.HTTPStatusCode() // 0 when no connection was made
	}
	return status < http.StatusMultipleChoices || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// openS3 makes a store. Servers other than AWS want the bucket in the path.
func openS3(ctx context.Context, at hosts.ConfigOptions, o s3store.Options) (*s3store.Store, error) {
	cfg, err := hosts.LoadConfig(ctx, at)
	if err != nil {
		return nil, err
	}
	o.PathStyle = at.Service.Endpoint != ""
	return s3store.New(cfg, o), nil
}

// keep makes the documents in effect stay for as long as if they were written
// today, once a day for as long as the daemon runs: evidence of six years ago
// is read with them. A failure is logged and tried again; nothing else waits
// for it, because the slack of a lock is a week at least.
func (d *daemon) keep(ctx context.Context, slackDays int, logger *zap.Logger) error {
	for wait := time.Duration(0); ; {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil // an orderly end
		}
		wait = keepEvery
		if err := d.keepOnce(ctx, ledger.RetainUntil(time.Now(), slackDays)); err != nil && ctx.Err() == nil {
			logger.Error("cannot keep what is in effect for longer", zap.Error(err))
			wait = keepAgain
		}
	}
}

// keepOnce also stores the documents, in case the supervisor has not come to it.
func (d *daemon) keepOnce(ctx context.Context, until time.Time) error {
	digests := make([]runner.Digest, len(d.documents))
	for i, document := range d.documents {
		var err error
		if digests[i], err = d.log.PutBlob(ctx, document); err != nil {
			return err
		}
	}
	return d.log.Extend(ctx, digests, until)
}
