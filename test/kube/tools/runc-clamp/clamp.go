package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// capabilities are those of linux/capability.h in the order of their bits.
var capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

// resources are the numbers of Linux's limits that images are known to raise.
var resources = map[string]int{"RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8}

// limits are what a process may hand on.
type limits struct {
	capabilities uint64            // the bounding set
	hard         map[string]uint64 // by the name of the resource
	oomScoreAdj  int               // nobody without CAP_SYS_RESOURCE goes below
}

func ownLimits() (limits, error) {
	own := limits{hard: map[string]uint64{}}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return own, err
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			if own.capabilities, err = strconv.ParseUint(strings.TrimSpace(set), 16, 64); err != nil {
				return own, fmt.Errorf("read /proc/self/status: %w", err)
			}
		}
	}
	for name, number := range resources {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(number, &limit); err != nil {
			return own, fmt.Errorf("read %s: %w", name, err)
		}
		own.hard[name] = limit.Max
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return own, err
	}
	own.oomScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(score)))
	return own, err
}

func (l limits) has(capability string) bool {
	bit := slices.Index(capabilities, strings.TrimPrefix(capability, "CAP_"))
	return bit >= 0 && l.capabilities&(1<<bit) != 0
}

// clampFile changes the process in the file, and nothing else there.
func clampFile(file string, inSpec bool, own limits) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber() // 64-bit values go through as they are
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	process := document
	if inSpec {
		process, _ = document["process"].(map[string]any)
	}
	own.clamp(process)
	if content, err = json.Marshal(document); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// clamp takes out of a process what these limits do not allow.
// https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
func (l limits) clamp(process map[string]any) {
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		list, _ := set.([]any)
		sets[name] = slices.DeleteFunc(list, func(c any) bool {
			text, _ := c.(string)
			return !l.has(text)
		})
	}
	rlimits, _ := process["rlimits"].([]any)
	for _, entry := range rlimits {
		limit, _ := entry.(map[string]any)
		name, _ := limit["type"].(string)
		hard, known := l.hard[name]
		for _, key := range []string{"soft", "hard"} {
			number, _ := limit[key].(json.Number)
			if value, err := strconv.ParseUint(number.String(), 10, 64); known && err == nil && value > hard {
				limit[key] = json.Number(strconv.FormatUint(hard, 10))
			}
		}
	}
	if number, ok := process["oomScoreAdj"].(json.Number); ok {
		if score, err := number.Int64(); err == nil && score < int64(l.oomScoreAdj) {
			process["oomScoreAdj"] = json.Number(strconv.Itoa(l.oomScoreAdj))
		}
	}
}
