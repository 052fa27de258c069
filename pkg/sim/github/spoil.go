package simgithub

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"
)

// spoil is the body of an answer as the fault leaves it. An answer that the
// fault cannot do anything to is left alone and costs the fault nothing.
func (s *Server) spoil(f *Fault, r *http.Request, rec *recorder) []byte {
	body := rec.body.Bytes()
	out, doc, spoilt := rewritten(f.Kind, rec)
	if !spoilt {
		return body
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.spend() {
		return body
	}
	switch f.Kind {
	case FaultClockSkew:
		ahead := f.Duration
		if ahead == 0 {
			ahead = 10 * time.Minute
		}
		rec.head.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
	case FaultDuplicateMessage:
		s.repeat(r, doc.message())
	case FaultLateStart:
		s.withhold(r, doc.message())
	}
	return out
}

// document is a JSON object of an answer.
type document map[string]any

// message is the id of a queue message.
func (d document) message() int64 {
	id, _ := d["messageId"].(float64)
	return int64(id)
}

// items are those of a queue message; false for any other answer.
func (d document) items() (items []map[string]any, ok bool) {
	text, isText := d["body"].(string)
	if !isText || d.message() == 0 || json.Unmarshal([]byte(text), &items) != nil {
		return nil, false
	}
	return items, true
}

// rewritten is the body spoilt, and whether there was something to spoil. It
// changes nothing but what it returns.
func rewritten(kind FaultKind, rec *recorder) (out []byte, doc document, spoilt bool) {
	body := rec.body.Bytes()
	if kind == FaultClockSkew {
		return body, nil, true
	}
	if rec.status >= 300 || len(body) < 2 {
		return body, nil, false
	}
	switch kind {
	case FaultTruncated:
		return body[:len(body)/2], nil, true
	case FaultByteOrderMark:
		return append([]byte("\xef\xbb\xbf"), body...), nil, true
	}
	if json.Unmarshal(body, &doc) != nil || !(doc.spoilField(kind) || doc.spoilItems(kind)) {
		return body, nil, false
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return body, nil, false
	}
	return out, doc, true
}

// spoilField spoils one field, if the answer has it.
func (d document) spoilField(kind FaultKind) bool {
	field, value := "", any(nil)
	switch kind {
	case FaultNullStatistics:
		field = "statistics"
	case FaultStaleStatistics:
		field, value = "statistics", map[string]any{
			"totalAvailableJobs": 0, "totalAcquiredJobs": 9, "totalAssignedJobs": 9, "totalRunningJobs": 0,
			"totalRegisteredRunners": 9, "totalBusyRunners": 0, "totalIdleRunners": 9,
		}
	case FaultNoQueueURL:
		field, value = "messageQueueUrl", ""
	case FaultUnknownMessage:
		field, value = "messageType", "RunnerScaleSetNews"
	case FaultCountOnly:
		field, value = "value", []any{}
	case FaultNoToken:
		field = "token"
	case FaultNoExpiry:
		field, value = "token", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
	default:
		return false
	}
	if old := d[field]; old == nil || old == "" {
		return false
	}
	d[field] = value
	if kind == FaultCountOnly {
		d["count"] = 1
	}
	return true
}

// spoilItems changes the list that a queue message holds as text.
func (d document) spoilItems(kind FaultKind) bool {
	items, isMessage := d.items()
	if !isMessage {
		return false
	}
	before := len(items)
	switch kind {
	case FaultDuplicateMessage:
		return before > 0 // the repetition is spoilt, this one is not
	case FaultUnknownItem:
		items = append(items, map[string]any{"messageType": "JobPondered", "jobId": "x"})
	case FaultPoisonItem:
		items = append(items, map[string]any{"messageType": "JobAssigned", "workflowRunId": "not a number"})
	case FaultReversed:
		if before < 2 {
			return false
		}
		slices.Reverse(items)
	case FaultEarlyEnd:
		if items = endEarly(items); len(items) == before {
			return false
		}
	case FaultLateStart:
		items = slices.DeleteFunc(items, func(item map[string]any) bool { return item["messageType"] == "JobStarted" })
		if len(items) == before {
			return false
		}
	default:
		return false
	}
	text, err := json.Marshal(items)
	if err != nil {
		return false
	}
	d["body"] = string(text)
	return true
}

// endEarly reports each job that starts as completed as well.
func endEarly(items []map[string]any) []map[string]any {
	for _, item := range slices.Clone(items) {
		if item["messageType"] == "JobStarted" {
			end := maps.Clone(item)
			end["messageType"], end["result"] = "JobCompleted", "canceled"
			items = append(items, end)
		}
	}
	return items
}
