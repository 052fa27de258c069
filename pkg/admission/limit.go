package admission

import (
	"sync"
	"time"
)

// limiter bounds what one caller can ask for: one question at a time, and a
// budget that refills steadily. It is safe for concurrent use.
type limiter struct {
	burst  float64       // questions that may come at once
	refill time.Duration // for one question
	keys   int           // remembered at most

	mu      sync.Mutex
	budgets map[string]*budget
}

type budget struct {
	left float64
	at   time.Time // when left was right
	busy bool
}

func newLimiter(burst int, refill time.Duration, keys int) *limiter {
	return &limiter{burst: float64(burst), refill: refill, keys: keys, budgets: map[string]*budget{}}
}

// enter takes one question from the key's budget. The caller calls leave once
// the question is answered; ok is false when it must not be asked now.
func (l *limiter) enter(key string, now time.Time) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.budgets[key]
	if b == nil {
		if !l.room() {
			return nil, false
		}
		b = &budget{left: l.burst, at: now}
		l.budgets[key] = b
	}
	b.left = min(l.burst, b.left+max(0, float64(now.Sub(b.at))/float64(l.refill)))
	b.at = now
	if b.busy || b.left < 1 {
		return nil, false
	}
	b.left--
	b.busy = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		b.busy = false
	}, true
}

// room forgets the key that was quiet for longest when too many are known, so
// that made-up names cost us no memory. One that is forgotten starts with a
// full budget again; Limits.Calls still bounds what reaches the gate.
func (l *limiter) room() bool {
	if len(l.budgets) < l.keys {
		return true
	}
	var oldest string
	var at time.Time
	for key, b := range l.budgets {
		if !b.busy && (oldest == "" || b.at.Before(at)) {
			oldest, at = key, b.at
		}
	}
	if oldest == "" {
		return false
	}
	delete(l.budgets, oldest)
	return true
}
