package simgithub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// rateWindow is the primary rate limit: a number of calls in each hour.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
type rateWindow struct {
	reset time.Time
	used  int
}

// roll begins a new hour if the last one is over.
func (w *rateWindow) roll(now time.Time) {
	if !now.Before(w.reset) {
		w.reset, w.used = now.Add(time.Hour), 0
	}
}

func (w *rateWindow) count(now time.Time, limit int) (map[string]string, bool) {
	w.roll(now)
	exceeded := w.used >= limit
	w.used = min(w.used+1, limit)
	return map[string]string{
		"X-RateLimit-Limit": strconv.Itoa(limit), "X-RateLimit-Used": strconv.Itoa(w.used),
		"X-RateLimit-Remaining": strconv.Itoa(limit - w.used), "X-RateLimit-Resource": "core",
		"X-RateLimit-Reset": strconv.FormatInt(w.reset.Unix(), 10),
	}, exceeded
}

// getRateLimit does not count against the limit.
// https://docs.github.com/en/rest/rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user
func (s *Server) getRateLimit(*http.Request) answer {
	s.limit.roll(time.Now())
	core := map[string]any{
		"limit": s.cfg.RateLimit, "used": s.limit.used, "remaining": s.cfg.RateLimit - s.limit.used, "reset": s.limit.reset.Unix(),
	}
	search := map[string]any{"limit": 30, "used": 0, "remaining": 30, "reset": s.limit.reset.Unix()}
	return ok(map[string]any{"resources": map[string]any{"core": core, "search": search}, "rate": core})
}

// tag gives a GET answer its ETag, and answers 304 without a body to whoever has
// it already; that does not count against the rate limit.
// https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
func (s *Server) tag(r *http.Request, a answer) answer {
	if r.Method != http.MethodGet || a.status != http.StatusOK {
		return a
	}
	body, err := json.Marshal(a.body)
	if err != nil {
		return a
	}
	sum := sha256.Sum256(body)
	a.header["ETag"] = `W/"` + hex.EncodeToString(sum[:16]) + `"`
	if r.Header.Get("If-None-Match") == a.header["ETag"] {
		s.limit.used--
		a.header["X-RateLimit-Used"] = strconv.Itoa(s.limit.used)
		a.header["X-RateLimit-Remaining"] = strconv.Itoa(s.cfg.RateLimit - s.limit.used)
		a.status, a.body = http.StatusNotModified, nil
	}
	return a
}
