package hosts

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// renewalPause is how long after a renewal failed the next one is tried, while
// there still are credentials.
const renewalPause = 20 * time.Second

// patientCredentials stays with the credentials that it has as long as they
// live when they cannot be renewed. Without it, a pause of STS within the expiry
// window would stop calls that AWS would still accept; the end of a host is
// among them. It is safe for concurrent use.
type patientCredentials struct {
	provider aws.CredentialsProvider

	mu     sync.Mutex
	last   aws.Credentials
	failed time.Time // when the last renewal did, zero if it did not
}

// Retrieve returns fresh credentials, or the last ones if those still live;
// otherwise the error of the provider.
func (p *patientCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if last, waiting := p.kept(); waiting {
		return last, nil
	}
	got, err := p.provider.Retrieve(ctx)
	if err == nil {
		p.keep(got, time.Time{})
		return got, nil
	}
	p.keep(aws.Credentials{}, time.Now())
	if last, ok := p.kept(); ok {
		return last, nil
	}
	return aws.Credentials{}, err
}

// keep remembers the credentials that were renewed, or when that failed.
func (p *patientCredentials) keep(got aws.Credentials, failed time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = failed
	if failed.IsZero() {
		p.last = got
	}
}

// kept are the last credentials, if they live and a renewal failed a moment
// ago. The provider counts the expiry window from their end, so that they live
// as much longer than they say.
func (p *patientCredentials) kept() (aws.Credentials, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	lives := p.last.CanExpire && now.Before(p.last.Expires.Add(expiryWindow))
	return p.last, lives && !p.failed.IsZero() && now.Sub(p.failed) < renewalPause
}
