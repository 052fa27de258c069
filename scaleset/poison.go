package scaleset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	upstream "github.com/actions/scaleset"
)

// The official client decodes a message as a whole: one field of another type
// and the message comes again for ever, with every job behind it
// (cloudbase/garm#812). salvage reads such a message item by item, so that what
// can be read is recorded and the rest is told of. Nothing can be authorized for
// an item that cannot be read, so nothing is lost by leaving it out.

// messageType is the one kind of message that the queue is known to have.
const messageType = "RunnerScaleSetJobMessages"

var errUnreadable = errors.New("it cannot be read")

// salvage returns what can be read of the body of a message, and what cannot.
// It fails when not even the number of the message is there: such a message
// cannot be acknowledged.
func salvage(body []byte) (*upstream.RunnerScaleSetMessage, []error, error) {
	var outer struct {
		ID         int             `json:"messageId"`
		Type       string          `json:"messageType"`
		Body       json.RawMessage `json:"body"`
		Statistics json.RawMessage `json:"statistics"`
	}
	body = bytes.TrimPrefix(bytes.TrimSpace(body), []byte("\xef\xbb\xbf"))
	if err := json.Unmarshal(body, &outer); err != nil || outer.ID <= 0 {
		return nil, nil, errUnreadable
	}
	msg := &upstream.RunnerScaleSetMessage{MessageID: outer.ID}
	var counters upstream.RunnerScaleSetStatistic
	if len(outer.Statistics) > 0 && json.Unmarshal(outer.Statistics, &counters) == nil && string(outer.Statistics) != "null" {
		msg.Statistics = &counters
	}
	var skipped []error
	if outer.Type != messageType {
		// It could be news of another kind. What the queue holds behind it are
		// jobs, so it must not stay in front of them.
		skipped = append(skipped, errors.New("a message of an unknown type"))
	}
	var text string
	var items []json.RawMessage
	if json.Unmarshal(outer.Body, &text) != nil || text != "" && json.Unmarshal([]byte(text), &items) != nil {
		return msg, append(skipped, fmt.Errorf("the body of the message: %w", errUnreadable)), nil
	}
	for i, item := range items {
		if err := sort(msg, item); err != nil {
			skipped = append(skipped, fmt.Errorf("item %d of the message: %w", i, err))
		}
	}
	return msg, skipped, nil
}

// sort puts an item where it belongs. Items of other types are passed over, as
// the official client does.
func sort(msg *upstream.RunnerScaleSetMessage, item json.RawMessage) error {
	var kind upstream.JobMessageType
	if json.Unmarshal(item, &kind) != nil {
		return errUnreadable
	}
	switch kind.MessageType {
	case upstream.MessageTypeJobAvailable:
		return take(&msg.JobAvailableMessages, item)
	case upstream.MessageTypeJobAssigned:
		return take(&msg.JobAssignedMessages, item)
	case upstream.MessageTypeJobStarted:
		return take(&msg.JobStartedMessages, item)
	case upstream.MessageTypeJobCompleted:
		return take(&msg.JobCompletedMessages, item)
	}
	return nil
}

func take[T any](list *[]*T, item json.RawMessage) error {
	v := new(T)
	if err := json.Unmarshal(item, v); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("its %s is not of the right type: %w", wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:], errUnreadable)
		}
		return errUnreadable
	}
	*list = append(*list, v)
	return nil
}
