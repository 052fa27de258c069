package supervisor

import (
	"context"
	"errors"

	"github.com/runnerward/runnerward/pkg/runner"
)

// FIPS is what Go's FIPS 140-3 module is and does in this process.
type FIPS struct {
	// Module is its version: that of a frozen module, such as v1.0.0, or
	// "latest", which is that of the toolchain and not validated.
	Module string `json:"module"`
	// Enabled: approved algorithms come from the module, which has tested
	// itself. Enforced: any other algorithm fails.
	Enabled  bool `json:"enabled"`
	Enforced bool `json:"enforced"`
}

// errNoHandover says that no key waits to take over.
var errNoHandover = errors.New("no key waits to take over")

// rotate lets the keys that were given besides those in force take over, one
// after the other. It runs after the log was opened and before anything else
// is written. A crash at any place is made good by the next start: whether the
// handover was written is what the log says.
func (s *Supervisor) rotate(ctx context.Context) error {
	for s.Rotation != nil {
		_, err := s.recordFrom(ctx, func(*runner.State) (runner.Event, error) {
			at, err := s.stamp()
			if err != nil {
				return nil, err
			}
			e, err := s.Rotation(ctx, at)
			if err == nil && e == nil {
				err = errNoHandover
			}
			return e, err
		})
		if errors.Is(err, errNoHandover) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
