package config_test

import (
	"strings"
	"testing"
)

const (
	keyA = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555501"
	keyB = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555502"
)

// inKMS is the example with keys in KMS, some lines of it replaced.
func inKMS(t *testing.T, keys ...string) string {
	t.Helper()
	text := replaced(t, "keysDir: /var/lib/runnerward/keys", `keysDir: ""`)
	pairs := append([]string{`recordKey: ""`, "recordKey: " + keyA, `checkpointKey: ""`, "checkpointKey: " + keyB}, keys...)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the example has no %q", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestLedgerKeysMayBeInKMS(t *testing.T) {
	c, err := parse(t, inKMS(t, `previousRecordKey: ""`, "previousRecordKey: "+keyB))
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Ledger.KMS; k.RecordKey != keyA || k.CheckpointKey != keyB || k.PreviousRecordKey != keyB || c.Ledger.KeysDir != "" {
		t.Errorf("ledger = %+v, want the keys in KMS", c.Ledger)
	}
}

func TestLedgerKeysThatCannotWorkAreRefused(t *testing.T) {
	for want, keys := range map[string][]string{
		"ledger.keysDir: given besides ledger.kms": {`keysDir: ""`, "keysDir: /var/lib/runnerward/keys"},
		"ledger.kms.recordKey: missing":            {"recordKey: " + keyA, `recordKey: ""`},
		"ledger.kms.checkpointKey: missing":        {"checkpointKey: " + keyB, `checkpointKey: ""`},
		`ledger.kms.recordKey: "alias/ledger" does not have the right form (give the ARN of a KMS key`: {"recordKey: " + keyA, "recordKey: alias/ledger"},
		"ledger.kms.previousRecordKey: the same key as the one that takes over":                        {`previousRecordKey: ""`, "previousRecordKey: " + keyA},
		"ledger.kms.previousKeysDir: the same folder as ledger.dir":                                    {`previousKeysDir: ""`, "previousKeysDir: /var/lib/runnerward/ledger"},
		"ledger.kms.previousKeysDir: given besides previous keys in KMS": {`previousRecordKey: ""`, "previousRecordKey: " + keyB,
			`previousKeysDir: ""`, "previousKeysDir: /var/lib/runnerward/keys"},
		"ledger.kms.previousCheckpointKey: \"k\" does not have the right form":       {`previousCheckpointKey: ""`, "previousCheckpointKey: k"},
		"ledger.kms.checkpointKey: in region us-west-2, the others are in us-east-1": {"checkpointKey: " + keyB, "checkpointKey: " + strings.Replace(keyB, "us-east-1", "us-west-2", 1)},
	} {
		_, err := parse(t, inKMS(t, keys...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want it to say %q", err, want)
		}
	}
	if _, err := parse(t, replaced(t, "keysDir: /var/lib/runnerward/keys", `keysDir: ""`)); err == nil || !strings.Contains(err.Error(), "ledger.keysDir: missing") {
		t.Errorf("Parse without any keys = %v, want them missing", err)
	}
}
