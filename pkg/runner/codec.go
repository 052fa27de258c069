package runner

import (
	"encoding/json"
	"fmt"
)

// decoders makes an empty event of each kind to decode into. A kind that is
// missing here could be written and never read back; a test compares the two.
var decoders = map[Kind]func([]byte) (Event, error){
	KindOpened:     decode[Opened],
	KindHeartbeat:  decode[Heartbeat],
	KindGap:        decode[Gap],
	KindFrozen:     decode[Frozen],
	KindUnfrozen:   decode[Unfrozen],
	KindOffered:    decode[Offered],
	KindAuthorized: decode[Authorized],
	KindDenied:     decode[Denied],
	KindReported:   decode[Reported],
	KindConcluded:  decode[Concluded],
	KindClaimed:    decode[Claimed],
	KindBound:      decode[Bound],
	KindReleased:   decode[Released],
	KindStarted:    decode[Started],
	KindRefused:    decode[Refused],
	KindRetired:    decode[Retired],
	KindCompleted:  decode[Completed],
	KindCancelled:  decode[Cancelled],
	KindTeardown:   decode[Teardown],
	KindOverdue:    decode[Overdue],
	KindEnding:     decode[Ending],
	KindTerminated: decode[Terminated],
	KindSealed:     decode[Sealed],
	KindRebuffed:   decode[Rebuffed],
	KindReviewed:   decode[Reviewed],
	KindAsked:      decode[Asked],
	KindRuled:      decode[Ruled],
	KindAnswered:   decode[Answered],
	KindStray:      decode[Stray],
	KindSwept:      decode[Swept],
	KindRotated:    decode[Rotated],
	KindSpooled:    decode[Spooled],
	KindClosed:     decode[Closed],
	KindContinued:  decode[Continued],
}

func decode[E Event](b []byte) (Event, error) {
	var e E
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	return e, nil
}

// DecodeEvent is the inverse of json.Marshal of an event of this kind. The
// result is always a value, never a pointer, and has passed [Validate].
func DecodeEvent(kind Kind, detail []byte) (Event, error) {
	dec, ok := decoders[kind]
	if !ok {
		return nil, fmt.Errorf("unknown event kind %.40q", kind)
	}
	e, err := dec(detail)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	if err := Validate(e); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return e, nil
}
