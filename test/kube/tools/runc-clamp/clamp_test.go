package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestEdited(t *testing.T) {
	for args, want := range map[string]struct {
		file   string
		inSpec bool
	}{
		"--root /run/runc --log l create --bundle /b --pid-file p id": {"/b/config.json", true},
		"run -b /b id":                             {"/b/config.json", true},
		"create --bundle=/b id":                    {"/b/config.json", true},
		"exec --process /tmp/p.json --detach id":   {"/tmp/p.json", false},
		"exec id create":                           {"", false},
		"kill id 9":                                {"", false},
		"--root /run/runc delete --force exec-run": {"", false},
	} {
		file, inSpec := edited(strings.Fields(args))
		if file != want.file || inSpec != want.inSpec {
			t.Errorf("edited(%q) = %q, %t, want %q, %t", args, file, inSpec, want.file, want.inSpec)
		}
	}
}

func TestClampTakesOutWhatIsNotThere(t *testing.T) {
	own := limits{capabilities: 1<<0 | 1<<21, hard: map[string]uint64{"RLIMIT_NOFILE": 20000}, oomScoreAdj: 100}
	for _, test := range []struct {
		name, in, want string
		inSpec         bool
	}{
		{"a specification", `{"root":{"path":"r"},"process":{"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_SYS_ADMIN"]},
			"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1024}],"oomScoreAdj":-998}}`,
			`{"root":{"path":"r"},"process":{"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"]},
			"rlimits":[{"type":"RLIMIT_NOFILE","hard":20000,"soft":1024}],"oomScoreAdj":100}}`, true},
		{"a process", `{"capabilities":{"effective":["CAP_BPF"]},"oomScoreAdj":500}`,
			`{"capabilities":{"effective":[]},"oomScoreAdj":500}`, false},
		{"a limit that nobody knows", `{"rlimits":[{"type":"RLIMIT_NICE","hard":40,"soft":40}]}`,
			`{"rlimits":[{"type":"RLIMIT_NICE","hard":40,"soft":40}]}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(file, []byte(test.in), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := clampFile(file, test.inSpec, own); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(parsed(t, got), parsed(t, []byte(test.want))) {
				t.Errorf("clamped to %s, want %s", got, test.want)
			}
		})
	}
}

func parsed(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOwnLimitsAreRead(t *testing.T) {
	own, err := ownLimits()
	if err != nil {
		t.Fatal(err)
	}
	if own.hard["RLIMIT_NOFILE"] == 0 {
		t.Errorf("own limits are %+v, want a number of open files", own)
	}
}
