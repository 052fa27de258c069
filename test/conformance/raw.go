package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// NewRaw is a client of nothing but net/http. It makes the requests that the
// protocol needs and reads their answers, no more.
func NewRaw(t Target) Client {
	if t.wire != nil {
		t.HTTP = t.wire.tap(t.HTTP)
	}
	return &raw{target: t}
}

type raw struct {
	target      Target
	base, token string
}

// refused is an answer with another status than the wanted one.
type refused struct {
	method, path string
	status       int
	body         string
}

func (e *refused) Error() string {
	return fmt.Sprintf("%s %s: HTTP %d: %s", e.method, e.path, e.status, e.body)
}

// exchange makes one request and decodes its answer.
func exchange(ctx context.Context, c *http.Client, want int, method, where, auth string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, where, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", auth)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != want {
		return &refused{method, req.URL.Path, resp.StatusCode, string(text)}
	}
	if len(text) > 0 && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return fmt.Errorf("%s %s: the answer is %s, not JSON", method, req.URL.Path, resp.Header.Get("Content-Type"))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), out)
}

// connect exchanges the credential for the service's address and token.
func (r *raw) connect(ctx context.Context) error {
	if r.base != "" {
		return nil
	}
	u, err := url.Parse(r.target.URL)
	if err != nil {
		return err
	}
	api := u.Scheme + "://" + u.Host + "/api/v3"
	var registration, service struct{ Token, URL string }
	err = exchange(ctx, r.target.HTTP, http.StatusCreated, http.MethodPost, api+"/orgs"+u.Path+"/actions/runners/registration-token", "Bearer "+r.target.Token, nil, &registration)
	if err != nil {
		return err
	}
	err = exchange(ctx, r.target.HTTP, http.StatusOK, http.MethodPost, api+"/actions/runner-registration", "RemoteAuth "+registration.Token,
		map[string]string{"url": r.target.URL, "runner_event": "register"}, &service)
	r.base, r.token = strings.TrimSuffix(service.URL, "/"), service.Token
	return err
}

func (r *raw) call(ctx context.Context, want int, method, path string, in, out any) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return exchange(ctx, r.target.HTTP, want, method, r.base+"/_apis/"+path+separator+"api-version=6.0-preview", "Bearer "+r.token, in, out)
}

const sets = "runtime/runnerscalesets"

// wireSet is a scale set as it is sent.
type wireSet struct {
	ID      int    `json:"id,omitempty"`
	Name    string `json:"name"`
	GroupID int    `json:"runnerGroupId"`
	Labels  []struct {
		Type string `json:"type"`
		Name string `json:"name"`
	} `json:"labels"`
	Setting struct {
		DisableUpdate bool `json:"disableUpdate"`
	} `json:"RunnerSetting"`
}

func (w wireSet) set() *Set {
	s := &Set{ID: w.ID, GroupID: w.GroupID, Name: w.Name}
	for _, l := range w.Labels {
		s.Labels = append(s.Labels, l.Name)
	}
	return s
}

func (r *raw) GroupID(ctx context.Context, name string) (int, error) {
	var list struct {
		Value []struct {
			ID   int
			Name string
		}
	}
	err := r.call(ctx, 200, "GET", "runtime/runnergroups/?groupName="+url.QueryEscape(name), nil, &list)
	if err == nil && (len(list.Value) != 1 || list.Value[0].Name != name) {
		err = fmt.Errorf("%d groups are called %s", len(list.Value), name)
	}
	if err != nil {
		return 0, err
	}
	return list.Value[0].ID, nil
}

func (r *raw) FindSet(ctx context.Context, group int, name string) (*Set, error) {
	var list struct{ Value []wireSet }
	err := r.call(ctx, 200, "GET", fmt.Sprintf("%s?name=%s&runnerGroupId=%d", sets, url.QueryEscape(name), group), nil, &list)
	if err != nil || len(list.Value) == 0 {
		return nil, err
	}
	return list.Value[0].set(), nil
}

func (r *raw) CreateSet(ctx context.Context, set Set) (*Set, error) {
	in := wireSet{Name: set.Name, GroupID: set.GroupID}
	in.Setting.DisableUpdate = true
	for _, name := range set.Labels {
		in.Labels = append(in.Labels, struct {
			Type string `json:"type"`
			Name string `json:"name"`
		}{"System", name})
	}
	var out wireSet
	err := r.call(ctx, 200, "POST", sets, in, &out)
	return out.set(), err
}

func (r *raw) DeleteSet(ctx context.Context, id int) error {
	return r.call(ctx, 204, "DELETE", fmt.Sprintf("%s/%d", sets, id), nil, nil)
}

func (r *raw) Register(ctx context.Context, set int, name string) (Registration, error) {
	var out struct {
		Runner  struct{ ID int }
		Encoded string `json:"encodedJITConfig"`
	}
	err := r.call(ctx, 200, "POST", fmt.Sprintf("%s/%d/generatejitconfig", sets, set), map[string]string{"name": name, "workFolder": "_work"}, &out)
	return Registration{out.Runner.ID, out.Encoded}, err
}

func (r *raw) FindRunner(ctx context.Context, name string) (int, error) {
	var list struct{ Value []struct{ ID int } }
	err := r.call(ctx, 200, "GET", "distributedtask/pools/0/agents?agentName="+url.QueryEscape(name), nil, &list)
	if err != nil || len(list.Value) == 0 {
		return 0, err
	}
	return list.Value[0].ID, nil
}

func (r *raw) RemoveRunner(ctx context.Context, id int) error {
	return r.call(ctx, 204, "DELETE", fmt.Sprintf("distributedtask/pools/0/agents/%d", id), nil, nil)
}

func (r *raw) Open(ctx context.Context, set int, owner string) (Session, error) {
	s := &rawSession{raw: r, set: set}
	err := r.call(ctx, 200, "POST", fmt.Sprintf("%s/%d/sessions", sets, set),
		map[string]string{"sessionId": "00000000-0000-0000-0000-000000000000", "ownerName": owner}, &s.session)
	return s, err
}

type rawSession struct {
	*raw
	set     int
	session struct {
		ID    string `json:"sessionId"`
		URL   string `json:"messageQueueUrl"`
		Token string `json:"messageQueueAccessToken"`
	}
}

func (s *rawSession) Poll(ctx context.Context, last, capacity int) (*Message, error) {
	where := s.session.URL
	if last > 0 {
		where += "&lastMessageId=" + strconv.Itoa(last)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.session.Token)
	req.Header.Set("Accept", "application/json; api-version=6.0-preview")
	req.Header.Set("X-ScaleSetMaxCapacity", strconv.Itoa(capacity))
	resp, err := s.target.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusAccepted:
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		return nil, &refused{"GET", req.URL.Path, resp.StatusCode, string(body)}
	}
	return readMessage(body)
}

func readMessage(body []byte) (*Message, error) {
	var outer struct {
		ID         int    `json:"messageId"`
		Type       string `json:"messageType"`
		Body       string `json:"body"`
		Statistics *struct {
			Assigned int `json:"totalAssignedJobs"`
			Running  int `json:"totalRunningJobs"`
			Idle     int `json:"totalIdleRunners"`
		} `json:"statistics"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &outer); err != nil {
		return nil, err
	}
	if outer.Type != "RunnerScaleSetJobMessages" {
		return nil, fmt.Errorf("a message of the unknown type %q", outer.Type)
	}
	var items []struct {
		Type    string `json:"messageType"`
		Job     string `json:"jobId"`
		Run     int64  `json:"workflowRunId"`
		Request int64  `json:"runnerRequestId"`
	}
	if outer.Body != "" {
		if err := json.Unmarshal([]byte(outer.Body), &items); err != nil {
			return nil, err
		}
	}
	m := &Message{ID: outer.ID, NoStatistics: outer.Statistics == nil}
	if s := outer.Statistics; s != nil {
		m.TotalAssigned, m.TotalRunning, m.TotalIdle = s.Assigned, s.Running, s.Idle
	}
	for _, item := range items {
		switch item.Type {
		case "JobAvailable":
			m.Available = append(m.Available, item.Request)
		case "JobAssigned":
			m.Assigned = append(m.Assigned, item.Job)
		case "JobStarted":
			m.Started = append(m.Started, item.Job)
		case "JobCompleted":
			m.Completed = append(m.Completed, item.Job)
		}
	}
	return m, nil
}

func (s *rawSession) Acknowledge(ctx context.Context, id int) error {
	before, query, _ := strings.Cut(s.session.URL, "?")
	return exchange(ctx, s.target.HTTP, 204, "DELETE", fmt.Sprintf("%s/%d?%s", before, id, query), "Bearer "+s.session.Token, nil, nil)
}

// Acquire implements Acquirer. It takes the queue's token, not the service's.
func (s *rawSession) Acquire(ctx context.Context, ids []int64) ([]int64, error) {
	var out struct{ Value []int64 }
	err := exchange(ctx, s.target.HTTP, 200, "POST", fmt.Sprintf("%s/_apis/%s/%d/acquirejobs?api-version=6.0-preview", s.base, sets, s.set),
		"Bearer "+s.session.Token, ids, &out)
	return out.Value, err
}

func (s *rawSession) Close(ctx context.Context) error {
	return s.call(ctx, 204, "DELETE", s.path(), nil, nil)
}

func (s *rawSession) path() string {
	return fmt.Sprintf("%s/%d/sessions/%s", sets, s.set, s.session.ID)
}
